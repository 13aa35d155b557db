"""Deliberate faults in who is told what, in sagas that are let go of and mended, and in calls that are given back."""

from __future__ import annotations

from tests.mutants.mutant import EACH_TOLD, GIVEN_BACK, LETS_GO, SERVER, SESSIONS, Mutant

OUTSIDE = "tests/barrier/test_barrier_outside.py::"
STATEMENTS_PY = "sdk/amends/barrier/_statements.py"
PEERS = "tests/server/test_peers.py::"
RUNNER_PY = SERVER + "runner/runner.py"
SESSION_PY = SERVER + "transport/session.py"
LINK_PY = SERVER + "transport/link.py"

OF_LETTING_GO = (
    # Told
    Mutant(
        "whoever waits for the end of a saga is told before it is durable (I35)",
        RUNNER_PY,
        "        saga.appending -= 1\n        if error is not None:",
        "        saga.appending -= 1\n        self._hub.publish(saga.key, state)\n        if error is not None:",
        LETS_GO + "test_i35_the_end_of_a_saga_is_told_once_it_is_known_to_be_durable",
    ),
    Mutant(
        "whoever waits for the end of a saga that is halted waits for ever (I34)",
        RUNNER_PY,
        "        self._hub.publish(key, None)  # so that nobody waits for it any longer\n",
        "",
        LETS_GO + "test_i34_whoever_waits_for_the_end_of_a_saga_that_is_halted_is_told_that_there_is_none",
    ),
    Mutant(
        "an end that was recorded though the store said no is told to nobody (I39)",
        RUNNER_PY,
        "        saga.advance(state)\n        self._hub.publish(saga.key, state)\n        unrecorded",
        "        saga.advance(state)\n        unrecorded",
        LETS_GO + "test_i35_the_end_of_a_saga_is_told_once_it_is_known_to_be_durable",
    ),
    Mutant(
        "a bug of the store silences the journal for good (I34)",
        SERVER + "journal.py",
        "        except Exception as error:  # a bug of the store must not",
        "        except ZeroDivisionError as error:  # a bug of the store must not",
        "tests/store/test_journal.py::test_i34_a_bug_of_the_store_fails_one_batch_and_silences_nobody",
    ),
    # In memory once
    Mutant(
        "a saga that is being read is begun beside that (I27)",
        RUNNER_PY,
        "        if key in self.places or key in self._loading or self",
        "        if key in self.places or self",
        LETS_GO + "test_i27_a_saga_that_is_on_its_way_into_memory_is_not_begun_there_a_second_time",
    ),
    Mutant(
        "the first command to end takes a saga away from the others (I27)",
        RUNNER_PY,
        "            self._pins[key] -= 1\n            if not self._pins[key]:\n                del self._pins[key]\n",
        "            self._pins.pop(key, None)\n",
        LETS_GO + "test_i27_two_commands_on_a_saga_that_rests_have_one_copy_of_it_until_both_are_over",
    ),
    Mutant(
        "a command is decided on a start that may be a repetition (I19)",
        RUNNER_PY,
        "        if key in self.places:\n            await self._wait_for_birth(key)\n        return self",
        "        return self",
        LETS_GO + "test_i19_a_command_on_a_saga_that_is_started_again_is_for_the_one_that_there_is",
    ),
    Mutant(
        "a saga is dropped while its call is out, for a deadline that is far (I39)",
        SERVER + "runner/active.py",
        "self.state is self.durable and not self.calls and",
        "self.state is self.durable and",
        LETS_GO + "test_a_saga_with_a_call_out_stays_in_memory_however_far_its_deadline_is",
    ),
    Mutant(
        "a copy that was let go of is decided on (I27)",
        RUNNER_PY,
        "        saga.forsake()\n        self.places",
        "        self.places",
        LETS_GO + "test_i27_an_answer_to_a_copy_that_was_let_go_of_leaves_the_next_one_alone",
    ),
    Mutant(
        "whoever gives up on a saga that is read gives up for all",
        SERVER + "runner/loading.py",
        "        return await asyncio.shield(task)",
        "        return await task",
        LETS_GO + "test_whoever_gives_up_on_a_saga_that_is_being_read_does_not_speak_for_the_others",
    ),
    # Mended and handed over
    Mutant(
        "a start that was mended counts as never sent for ever (I17, I27)",
        RUNNER_PY,
        "            self._unsent.discard(saga.key)\n",
        "            pass\n",
        LETS_GO + "test_i27_a_start_that_was_mended_is_let_go_of_like_any_other",
    ),
    Mutant(
        "a saga that was let go of is mended beside its next copy (I27)",
        RUNNER_PY,
        "        if not self.places.holds(saga):  # it was let go of meanwhile\n            return\n",
        "",
        LETS_GO + "test_i27_a_saga_that_broke_and_was_let_go_of_is_not_mended_beside_its_next_copy",
    ),
    Mutant(
        "a saga that breaks again while it is mended is forgotten (I28)",
        SERVER + "runner/mending.py",
        "        if self._broken.get(saga.key) is saga:  # and not",
        "        if True:  # and not",
        LETS_GO + "test_i28_a_saga_that_breaks_again_while_it_is_mended_is_mended_again",
    ),
    Mutant(
        "one saga that cannot be read keeps the others from being mended (I28)",
        SERVER + "runner/mending.py",
        "                failure = error\n        if",
        "                raise error\n        if",
        LETS_GO + "test_i28_one_saga_that_cannot_be_read_keeps_no_other_from_being_mended",
    ),
    Mutant(
        "what is about to be handed over is gone on with (I26)",
        SERVER + "runner/domain.py",
        "        return self._holding or self._ownership.leaves(key)",
        "        return self._holding",
        LETS_GO + "test_i26_nothing_is_dispatched_for_a_saga_that_is_about_to_be_handed_over",
    ),
    Mutant(
        "partitions are handed over before the outcomes of their calls are recorded (I26)",
        SERVER + "runner/active.py",
        "        return bool(self.calls) or (self.appending > 0 and self.durable is not None)\n",
        "        return bool(self.calls)\n",
        LETS_GO + "test_i26_calls_on_hold_are_waited_for_until_they_are_recorded_and_no_others_are",
    ),
    # Given back
    Mutant(
        "a call that is given back takes the place of another for good (I39)",
        LINK_PY,
        "        self._waiting.appendleft(attempt)\n        self._leave_room()\n",
        "        self._waiting.appendleft(attempt)\n",
        GIVEN_BACK + "test_a_call_that_is_given_back_makes_room_for_itself",
    ),
    Mutant(
        "a call that is given back by a participant that was removed is lost (I39)",
        LINK_PY,
        "            if not self._moved(attempt):\n                return False\n",
        "            self._moved(attempt)\n",
        GIVEN_BACK + "test_a_call_that_is_given_back_by_a_participant_that_was_removed_is_told",
    ),
    # Each is told
    Mutant(
        "a call whose answer meets a bug is told nothing, and takes its session along (I34)",
        SESSION_PY,
        "            except Exception as bug:\n                verdict = attempt.broken(bug)\n",
        "            except ZeroDivisionError as bug:\n                verdict = attempt.broken(bug)\n",
        EACH_TOLD + "test_i34_a_call_whose_answer_meets_a_bug_is_told_so",
    ),
    Mutant(
        "a call that was answered is over a second time, and others at that moment are not (I39)",
        SESSION_PY,
        "            self._deadlines.remove(call_id)\n",
        "",
        EACH_TOLD + "test_calls_whose_time_is_up_are_told_beside_others_that_were_answered",
    ),
    Mutant(
        "a participant may send results a few thousand times, and never again (I39)",
        SESSION_PY,
        "        self._result_credits_owed += len(response.results)\n",
        "",
        EACH_TOLD + "test_a_participant_may_send_as_many_results_as_there_are_calls",
    ),
    Mutant(
        "calls that wait for a participant that is removed are lost (I39)",
        SERVER + "transport/links.py",
        "            for attempt in self._retire(link):\n                attempt.tell(verdict)",
        "            self._retire(link)",
        EACH_TOLD + "test_calls_that_wait_for_a_participant_that_is_removed_are_told",
    ),
    Mutant(
        "a client that was refused often may start nothing any more (I39)",
        SERVER + "service/outcomes.py",
        "            elif isinstance(outcome, Acknowledged) or not outcome.end:\n",
        "            elif isinstance(outcome, Acknowledged):\n",
        SESSIONS + "test_each_start_gives_its_credit_back_once_also_if_it_is_refused",
    ),
    Mutant(
        "large starts that were refused hold up all others (I39)",
        SERVER + "service/session.py",
        "        self._answered(taken)\n        status = to_status",
        "        status = to_status",
        SESSIONS + "test_starts_that_were_refused_take_no_room_from_others",
    ),
    # Passed on
    Mutant(
        "what an owner may have done is asked for again, though it may not be done twice (I26)",
        SERVER + "service/peers.py",
        'reason in ("NOT_OWNED", "SHUTTING_DOWN") or (reason == "OWNER_LOST" and repeatable)',
        'reason in ("NOT_OWNED", "SHUTTING_DOWN", "OWNER_LOST")',
        PEERS + "test_a_command_that_the_owner_says_may_have_been_carried_out_is_asked_for_once",
    ),
    Mutant(
        "a call is passed to and fro between two that take each other for the owner",
        SERVER + "service/peers.py",
        "        if _was_forwarded(metadata):\n"
        "            self._callers.believe(metadata, method, key)\n"
        "            return Here(key, False)\n",
        "",
        PEERS + "test_a_call_that_was_passed_on_is_passed_on_no_further",
    ),
    Mutant(
        "a saga that is gone counts at its participant for ever (I41)",
        SERVER + "runner/places.py",
        "            self.rest(saga)\n            self._leaving.discard(key)\n",
        "            self._leaving.discard(key)\n",
        LETS_GO + "test_i41_no_saga_that_is_gone_counts_at_its_participant",
    ),
    # Behind a barrier
    Mutant(
        "an attempt withdraws the intent of the one that took over from it (I13)",
        STATEMENTS_PY,
        "WHERE key = :key AND state = 'intended' AND holder = :holder RETURNING",
        "WHERE key = :key AND state = 'intended' RETURNING",
        OUTSIDE + "test_i13_what_another_attempt_took_over_is_not_given_up_by_the_first",
    ),
    Mutant(
        "an attempt lets a third one begin beside the one that took over from it (I13)",
        STATEMENTS_PY,
        "held_until = 0 WHERE key = :key AND holder = :holder RETURNING key",
        "held_until = 0 WHERE key = :key RETURNING key",
        OUTSIDE + "test_i13_what_another_attempt_took_over_is_not_given_up_by_the_first",
    ),
)
