"""Deliberate faults in the safety core, and for each the test that must catch it.

A fault is one piece of source that is replaced by another. Most were, or would be, easy mistakes.
"""

from __future__ import annotations

from dataclasses import dataclass

SERVER = "server/amends_server/"
SEEDS = "tests/simulation/test_simulation.py::test_no_seed_breaks_an_invariant_and_all_rare_states_are_seen"
CRASHES = "tests/simulation/test_crash_points.py::test_i32_a_crash_at_any_effect_is_recovered_from"
WORLDS = "tests/engine/test_properties.py::test_no_world_breaks_an_invariant"
RUNNER = "tests/server/test_runner.py::"
FOUND = "tests/server/test_runner_found.py::"
CORNERS = "tests/engine/test_corner_cases.py::"
SAGAS = "tests/store/test_store_sagas.py::"
RULE = "sdk/amends/barrier/_rule.py"
CONTRACT = "tests/barrier/test_barrier_contract.py::"


@dataclass(frozen=True)
class Mutant:
    """A fault: what is wrong, where, the source and what stands there instead, and who notices. `quick`: in seconds."""

    name: str
    path: str
    source: str
    instead: str
    caught_by: str
    quick: bool = False


MUTANTS = (
    # Intent and order
    Mutant(
        "a call is sent before its intent is on disk (I10)",
        SERVER + "runner/runner.py",
        "        self._journal.append(append, partial(self._recorded, saga, decision.state, calls, settle))\n",
        "        self._journal.append(append, partial(self._recorded, saga, decision.state, calls, settle))\n"
        "        self._send(saga, decision.state, calls)\n",
        RUNNER + "test_nothing_is_sent_and_nobody_is_answered_before_the_intent_is_durable",
        quick=True,
    ),
    Mutant(
        "an outcome that could not be recorded is forgotten (I35)",
        SERVER + "runner/runner.py",
        "        if settle is not None:\n            saga.unrecorded.append(settle)\n",
        "",
        RUNNER + "test_i35_an_outcome_that_could_not_be_recorded_is_kept_and_the_call_not_repeated",
        quick=True,
    ),
    Mutant(
        "an action is sent after the saga turned back (I3)",
        SERVER + "runner/runner.py",
        "        return owed.compensation or not state.going_back\n",
        "        return True\n",
        SEEDS,
    ),
    Mutant(
        "a saga that rests is dropped while a command has it, and is in memory twice (I27)",
        SERVER + "runner/runner.py",
        "        elif saga.idle and saga.key not in self._pins:\n",
        "        elif saga.idle:\n",
        RUNNER + "test_i6_commands_on_a_saga_that_rests_have_one_copy_of_it_and_send_a_call_once",
        quick=True,
    ),
    Mutant(
        "a rejection does not wait for the state that it is for (I21, I35)",
        SERVER + "runner/runner.py",
        "                    await saga.follow(saga.state.sequence)\n",
        "                    pass\n",
        "tests/server/test_runner_found.py::test_i21_a_cancel_is_not_refused_for_a_completion_that_is_not_durable",
    ),
    Mutant(
        "a command is answered before it is on disk (I35)",
        SERVER + "runner/runner.py",
        "            view = View(key, saga.birth, await saga.follow(state.sequence))\n",
        "            view = View(key, saga.birth, state)\n",
        SEEDS,
    ),
    # Recovery
    Mutant(
        "calls that were lost with their process are sent again as if they were new (I27)",
        SERVER + "runner/runner.py",
        "        if state.final or (key in self._unsent and row.head.epoch == epoch):\n",
        "        if True:\n",
        CRASHES,
    ),
    Mutant(
        "a saga whose first append of this process failed is gone on with as if its calls were ours (I31)",
        SERVER + "runner/runner.py",
        "        if epoch != saga.origin.epoch or state.sequence <= saga.inherited:  # what",
        "        if state.sequence <= saga.inherited:  # what",
        SEEDS,
    ),
    Mutant(
        "a saga that was let go of and could not be taken up again has its open call sent as if it were new (I27)",
        SERVER + "runner/runner.py",
        "        if epoch != saga.origin.epoch or state.sequence <= saga.inherited:  # what",
        "        if epoch != saga.origin.epoch:  # what",
        FOUND + "test_i27_what_was_sent_before_a_saga_was_let_go_of_is_not_sent_again_when_that_cannot_be_recorded",
        quick=True,
    ),
    Mutant(
        "recovery stops at a saga that cannot be read (I28)",
        SERVER + "runner/keeper.py",
        "            unread = await self._wake_all(unread)\n",
        "            unread = []\n",
        "tests/server/test_runner.py::test_i28_one_saga_that_cannot_be_read_keeps_no_other_from_recovery",
    ),
    Mutant(
        "sagas that could not be recorded are not mended (I28)",
        SERVER + "runner/keeper.py",
        "            await self._patiently(self._runner.mender.mend)\n",
        "            await asyncio.sleep(0)\n",
        SEEDS,
    ),
    Mutant(
        "due times are not scanned (I23)",
        SERVER + "runner/keeper.py",
        "            await self._wake_all([row.key for row in page if row.key not in self._runner.halts.why])\n",
        "",
        "tests/server/test_keeper.py::test_i23_the_sweep_wakes_what_is_due_and_nothing_else",
        quick=True,
    ),
    Mutant(
        "a deadline that passed while nobody ran is not met (I22)",
        SERVER + "engine/settle.py",
        "    if not draft.state.final:\n        draft.wake()\n",
        "",
        CORNERS + "test_a_deadline_that_passed_while_down_is_met_on_recovery",
        quick=True,
    ),
    # Timers
    Mutant(
        "a timer is not in the row that the decision writes (I23)",
        SERVER + "runner/active.py",
        "            due_time=self.next_time(state),\n",
        "            due_time=None,\n",
        SEEDS,
    ),
    Mutant(
        "the deadline is not among the times to wake at (I23)",
        SERVER + "engine/due.py",
        "    of_saga = _next_of_saga(state)\n",
        "    of_saga = None\n",
        WORLDS,
    ),
    Mutant(
        "a deadline is met early (I22)",
        SERVER + "engine/draft.py",
        "        if deadline is not None and self.now >= deadline and forward and not state.committed:\n",
        "        if deadline is not None and self.now >= deadline - 5 and forward and not state.committed:\n",
        CORNERS + "test_a_deadline_is_not_met_early",
    ),
    # Compensation
    Mutant(
        "only steps that succeeded are compensated (I4)",
        SERVER + "engine/state.py",
        "        return not self.action.open and self.unproven == 0\n",
        "        return not self.action.open and self.status not in (StepStatus.SUCCEEDED, StepStatus.COMPENSATING)\n",
        WORLDS,
    ),
    Mutant(
        "a refusal speaks for the attempts before it (I17)",
        SERVER + "engine/evolve.py",
        "            unproven = 0 if event.stored else step.unproven - (call.at_stake if called else 0)\n",
        "            unproven = 0\n",
        "tests/engine/test_golden.py::test_history[refused_after_unknown]",
    ),
    Mutant(
        "a refusal that is brought twice refuses the work of the next attempt, too (I4)",
        SERVER + "engine/action.py",
        "    stale = isinstance(command.verdict, Refused) and command.attempt <= step.action.heard\n",
        "    stale = False\n",
        "tests/engine/test_golden.py::test_history[word_repeated]",
    ),
    Mutant(
        "work in progress that is refused counts for no attempt",
        SERVER + "engine/calls.py",
        "        forgiven=call.attempts - call.counted(refused=refused),\n",
        "",
        "tests/engine/test_golden.py::test_history[work_refused_counts]",
    ),
    Mutant(
        "a step that has succeeded keeps the error of an attempt before",
        SERVER + "engine/context.py",
        "            return _error(state.step(step).error)\n",
        "            return _error(state.step(step).action.error)\n",
        WORLDS,
    ),
    Mutant(
        "compensations go in the order of the way forward (I5)",
        SERVER + "engine/draft.py",
        "        for index in reversed(graph.order):\n",
        "        for index in graph.order:\n",
        WORLDS,
    ),
    Mutant(
        "a step is compensated while its action is in flight (I6)",
        SERVER + "engine/draft.py",
        "        if step.action.open:\n            return False\n",
        "",
        CORNERS + "test_a_sibling_in_flight_is_quiesced_before_it_is_compensated",
    ),
    Mutant(
        "a compensation that has used up its attempts counts as done (I8)",
        SERVER + "engine/evolve.py",
        "compensation=failed, resolution=None)\n",
        "compensation=failed, resolution=None, unproven=0)\n",
        WORLDS,
    ),
    Mutant(
        "a lost compensation counts as done (I8)",
        SERVER + "engine/settle.py",
        "            _settle_compensation_unknown(draft, node, Unknown(LOST), draft.now)\n",
        "            draft.add(CompensationSucceeded(draft.now, node.step.id, step.compensation.attempts))\n",
        RUNNER + "test_i8_a_compensation_that_was_lost_with_its_process_is_never_taken_for_done",
    ),
    Mutant(
        "after a compensation failed the others go on though the definition says HALT",
        SERVER + "engine/draft.py",
        "        self._halted = self._halts and any(step.halts for step in self.state.steps)\n",
        "        self._halted = False\n",
        WORLDS,
    ),
    # The pivot
    Mutant(
        "a saga turns back past its pivot (I7)",
        SERVER + "engine/draft.py",
        "        if not self.state.going_back and not self.state.committed and node.step.kind is not Kind.RETRIABLE:\n",
        "        if not self.state.going_back and node.step.kind is not Kind.RETRIABLE:\n",
        WORLDS,
    ),
    Mutant(
        "only a pivot that succeeded keeps the saga from turning back (I7)",
        SERVER + "engine/state.py",
        "        return any(self.steps[i].unproven for i in self.graph.ends)\n",
        "        return any(self.steps[i].status is StepStatus.SUCCEEDED for i in self.graph.ends)\n",
        WORLDS,
    ),
    Mutant(
        "two pivots may run in one saga, whatever their conditions (I7)",
        SERVER + "engine/branches.py",
        "        return a is None or b is None or a.exclude(b)\n",
        "        return a is None or b is None or a != b\n",
        "tests/engine/test_validation.py::test_a_finding_has_a_code_and_names_its_field",
    ),
    Mutant(
        "a cancel is accepted past the pivot (I7, I21)",
        SERVER + "engine/decide.py",
        '    if state.committed:\n        raise Rejected("PIVOT_DISPATCHED"',
        '    if False:\n        raise Rejected("PIVOT_DISPATCHED"',
        WORLDS,
    ),
    # Keys, bytes and verdicts
    Mutant(
        "the input is made anew for each attempt (I12)",
        SERVER + "engine/evolve.py",
        "                input=event.input if call.attempts == 0 else step.input,\n",
        "                input=event.input,\n",
        SEEDS,
    ),
    Mutant(
        "the key of a compensation is that of its action (I11)",
        SERVER + "engine/due.py",
        "        key = call_key(started.namespace, started.saga_id, node.step.id, compensation=True)\n",
        "        key = execute_key\n",
        CRASHES,
    ),
    Mutant(
        "an answer to an earlier attempt is taken for the open one's (I17)",
        SERVER + "engine/settle.py",
        "    if not call.open or call.attempts != command.attempt:\n",
        "    if not call.open:\n",
        WORLDS,
    ),
    Mutant(
        "UNAVAILABLE is taken for a proof that nothing happened (I4)",
        SERVER + "transport/verdicts.py",
        "    return Unknown(_error(name, message, participant), again)\n",
        "    return Refused(_error(name, message, participant))\n",
        SEEDS,
    ),
    Mutant(
        "a reply that cannot be read is taken for success",
        SERVER + "transport/verdicts.py",
        '        return _unreadable(participant, "the response cannot be decoded")\n',
        "        return Succeeded(None)\n",
        "tests/acceptance/test_wire_faults.py::test_an_unclear_answer_is_unknown_and_never_a_success",
    ),
    # Start and watch
    Mutant(
        "a start with other content is taken for a repetition (I19)",
        SERVER + "service/starts.py",
        "        if birth.fingerprint != self.fingerprint:\n            return False\n",
        "",
        SEEDS,
    ),
    Mutant(
        "a watcher that goes on gets an event twice (I36)",
        SERVER + "service/feed.py",
        "                    if record.sequence > after_sequence:\n",
        "                    if record.sequence >= after_sequence:\n",
        SEEDS,
    ),
    Mutant(
        "a watcher is not told that the journal has grown (I36)",
        SERVER + "hub.py",
        "        for event in self._watchers.get(key, ()):\n            event.set()\n        if",
        "        if",
        "tests/acceptance/test_h_watching.py::test_h56_events_come_as_they_happen_in_order_with_times_attempts_and_errors",
    ),
    # The journal and the store
    Mutant(
        "appends behind one that failed are written all the same (I30)",
        SERVER + "journal.py",
        "        if not failed:\n            return []\n",
        "        return []\n",
        "tests/store/test_journal.py::test_i35_a_refusal_takes_along_what_is_queued_behind_it",
        quick=True,
    ),
    Mutant(
        "a commit that failed is told as done (I35)",
        SERVER + "journal.py",
        "            return [error] * len(appends)\n",
        "            return [None] * len(appends)\n",
        SEEDS,
    ),
    Mutant(
        "an append again is taken for stored, whatever is stored there (I31)",
        SERVER + "store/batch.py",
        "        return [*stored, *added] == list(append.records)\n",
        "        return True\n",
        SAGAS + "test_an_append_at_another_place_than_the_head",
    ),
    Mutant(
        "the epoch is not looked at when a head moves (I24)",
        SERVER + "store/batch.py",
        "        if append.head.epoch < journal.epoch:\n            return _stale(append)\n",
        "",
        SAGAS + "test_i24_nobody_of_an_earlier_epoch_writes_to_a_saga",
    ),
    Mutant(
        "the log is not synced at each commit (I20)",
        SERVER + "store/connection.py",
        '    _set(path, db, "synchronous", "full", 2)\n',
        '    _set(path, db, "synchronous", "normal", 1)\n',
        "tests/power/test_power_loss.py::test_i20_i32_a_power_failure_at_any_point_loses_nothing_acknowledged",
    ),
    Mutant(
        "events and head are written in two transactions (I32)",
        SERVER + "store/sagas.py",
        "    moves = [(*head_columns(head), *references.stored(key))",
        '    db.execute("commit")\n    db.execute("begin immediate")\n'
        "    moves = [(*head_columns(head), *references.stored(key))",
        "tests/power/test_power_loss.py::test_i20_i32_a_power_failure_at_any_point_loses_nothing_acknowledged",
    ),
    # Without end
    Mutant(
        "attempts are repeated though the history is full (I42)",
        SERVER + "engine/history.py",
        "    return state.sequence >= (_back_max(state) if state.going_back else _forward_max(state))\n",
        "    return False\n",
        "tests/engine/test_history.py::test_a_saga_turns_back_when_its_history_is_full",
    ),
    Mutant(
        "a late reply is recorded each time that it comes (I42)",
        SERVER + "engine/draft.py",
        "        if (step, attempt, compensation, reply) not in self.state.late and takes_late_replies(self.state):\n",
        "        if takes_late_replies(self.state):\n",
        "tests/engine/test_history.py::test_a_late_reply_is_recorded_once",
    ),
    Mutant(
        "a step that waits for its turn is dispatched without its input (I12)",
        SERVER + "engine/draft.py",
        "            if step.action.attempts and step.action.due_time is not None and",
        "            if step.action.due_time is not None and",
        "tests/engine/test_making.py::test_i42_steps_that_would_make_too_much_at_once_wait_for_their_turn",
    ),
    # The barrier
    Mutant(
        "a compensation that comes first leaves no tombstone (I14, I15)",
        RULE,
        '            if await database.fetch(tx, ENTER, key=key, state="undone"):\n',
        "            if not await database.fetch(tx, READ, key=key):\n",
        CONTRACT + "test_i14_i15_a_compensate_that_comes_first_leaves_a_tombstone",
        quick=True,
    ),
    Mutant(
        "an execute that comes late is told that all is well (I15)",
        RULE,
        '        case "undone" | "undoing":\n            return _undone()\n',
        '        case "undone" | "undoing":\n            return nothing_to_undo()\n',
        CONTRACT + "test_i14_i15_a_compensate_that_comes_first_leaves_a_tombstone",
    ),
    Mutant(
        "the key is looked for before it is written, instead of being written first (I13, I18)",
        RULE,
        '            if not await database.fetch(tx, ENTER, key=key, state="begun"):\n'
        "                return await _kept(database, tx, key)\n",
        "            if await database.fetch(tx, READ, key=key):\n"
        "                return await _kept(database, tx, key)\n"
        '            await database.fetch(tx, ENTER, key=key, state="begun")\n',
        "tests/barrier/test_barrier_orders.py::test_i18_two_calls_of_a_key_in_every_order",
    ),
    Mutant(
        "what a handler did before it refused stays (I16)",
        RULE,
        '        async with database.savepoint(tx):\n            return "succeeded", await effect(tx)\n',
        '        return "succeeded", await effect(tx)\n',
        CONTRACT + "test_i16_a_refusal_is_kept_and_nothing_else_of_its_handler",
    ),
    Mutant(
        "a verdict is not said to be stored (I16)",
        RULE,
        "    reply.stored = True\n    settled",
        "    settled",
        CONTRACT + "test_i16_a_duplicate_gets_the_first_reply_to_the_byte_and_has_no_effect",
    ),
    Mutant(
        "an intent is taken over while another attempt is at it (I13)",
        "sdk/amends/barrier/_statements.py",
        "WHERE key = :key AND state = :before AND held_until <= {now} RETURNING reply\n",
        "WHERE key = :key AND state = :before RETURNING reply\n",
        "tests/barrier/test_barrier_outside.py::test_the_same_key_many_times_at_once_is_asked_for_once",
    ),
    # The test kit
    Mutant(
        "the check of every failure takes what is left over for nothing",
        "sdk/amends/testing/check.py",
        "        if result.status is not SagaStatus.STUCK and result.changed == wanted and not astray:\n",
        "        if result.status is not SagaStatus.STUCK and not astray:\n",
        "tests/sdk/test_testing_check.py::test_handlers_that_do_not_look_at_the_key_double_their_effects",
        quick=True,
    ),
)
