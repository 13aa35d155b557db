"""Deliberate faults in who owns a saga, how it comes into memory, and how it is found again."""

from __future__ import annotations

from tests.mutants.mutant import FOUND, LEASES, LETS_GO, RUNNER, SEEDS, SERVER, Mutant

KEEPER = "tests/server/test_keeper.py::"
PEERS = "tests/server/test_peers.py::"
PLACES = "tests/server/test_places.py::"
UNSENT = "tests/server/test_unsent_calls.py::"
LEASES_PY = SERVER + "store/postgres/leases.py"
STATEMENTS = SERVER + "store/sql/postgres.sql"

OF_OWNERS = (
    # Into memory
    Mutant(
        "what another one writes while a saga is read is taken for ours (I26)",
        SERVER + "runner/reader.py",
        "min(RECORDS_PAGE, count - len(records))",
        "RECORDS_PAGE",
        FOUND + "test_i26_what_another_one_writes_while_a_saga_is_read_is_not_in_what_was_read",
    ),
    Mutant(
        "a saga that was read while another one owned it is run as it was (I26)",
        SERVER + "runner/runner.py",
        "        if self.domain.epoch_of(key) != epoch:  # meanwhile",
        "        if False:  # meanwhile",
        FOUND + "test_i26_a_saga_that_was_read_while_another_one_owned_it_is_read_again",
    ),
    Mutant(
        "what this process had before it let go of a saga is sent again as if it were new (I27)",
        SERVER + "runner/runner.py",
        "        if state.final or (key in self._unsent and row.head.epoch == epoch):",
        "        if state.final or row.head.epoch == epoch:",
        FOUND + "test_i27_a_call_that_was_sent_before_a_saga_was_let_go_of_is_not_sent_again_as_if_it_were_new",
    ),
    Mutant(
        "a saga that two ask for comes into memory twice (I27)",
        SERVER + "runner/loading.py",
        "        task = self._tasks.get(key)\n",
        "        task = None\n",
        SEEDS,
    ),
    Mutant(
        "sagas of which the partition was lost stay in memory (I24, I26)",
        SERVER + "runner/runner.py",
        "        for saga in [saga for saga in self.places.all() if not self._owns(saga)]:\n"
        "            self._drop(saga)\n",
        "",
        FOUND + "test_i24_not_owned_says_that_nothing_was_done",
    ),
    Mutant(
        "a saga that another one has written is mended by its old owner (I24)",
        SERVER + "runner/runner.py",
        "        if isinstance(error, Stale):\n            self._drop(saga)\n        elif",
        "        if",
        LETS_GO + "test_i24_a_saga_that_another_one_has_written_is_let_go_of_and_not_mended",
    ),
    Mutant(
        "a saga that was mended is gone on with by who does not own it any more (I26)",
        SERVER + "runner/runner.py",
        "        if not self._owns(saga):\n            return self._drop(saga)\n",
        "",
        LETS_GO + "test_i26_a_saga_that_broke_is_not_mended_by_who_does_not_own_it_any_more",
    ),
    Mutant(
        "a saga that another one may run is shown as it was (I37)",
        SERVER + "runner/runner.py",
        "(state := saga.certain) is not None and self._owns(saga):",
        "(state := saga.certain) is not None:",
        FOUND + "test_i37_of_a_saga_that_another_one_may_run_the_store_is_asked_and_not_what_is_in_memory",
    ),
    Mutant(
        "a saga is shown as it was before what others may have read already (I37)",
        SERVER + "runner/active.py",
        "        return self.durable if self.state is self.durable else None\n",
        "        return self.durable\n",
        FOUND + "test_i37_of_a_saga_that_is_being_written_the_store_is_asked_for_others_may_have_read_it",
    ),
    Mutant(
        "an outcome that comes while the store is gone is forgotten (I35)",
        SERVER + "runner/runner.py",
        "            saga.unrecorded.append(settle)\n            self._note_settled(saga)\n",
        "            self._note_settled(saga)\n",
        RUNNER + "test_a_reply_that_comes_while_the_saga_is_broken_is_recorded_after_it_is_mended",
    ),
    Mutant(
        "an action is sent by the append that holds the turning back, too (I3)",
        SERVER + "runner/runner.py",
        "            if saga.state is not None and saga.state.going_back and not owed.compensation:",
        "            if False:",
        RUNNER + "test_i3_a_cancel_that_is_durable_with_a_dispatch_keeps_it_from_being_sent",
    ),
    Mutant(
        "a call that is out is sent a second time by whoever reads the saga anew (I27)",
        SERVER + "runner/active.py",
        " and call not in self.calls]",
        "]",
        SEEDS,
    ),
    Mutant(
        "a call that waits for its turn is sent on the way out (I3)",
        SERVER + "runner/runner.py",
        "        if state is None or state.paused or self.domain.holds(saga.key) or (",
        "        if state is None or state.paused or (",
        UNSENT + "test_i3_nothing_is_sent_after_the_server_is_told_to_stop_and_what_waited_is_no_attempt",
    ),
    # Passed on
    Mutant(
        "a refusal by the next owner is told of a call that the first one may have carried out (I37)",
        SERVER + "service/peers.py",
        "            if not self.in_doubt:\n                raise\n",
        "            raise\n",
        PEERS + "test_i37_what_the_next_owner_refuses_says_nothing_of_what_the_first_one_did",
    ),
    Mutant(
        "a new owner refuses what the one before may have carried out as not begun (I37)",
        SERVER + "service/peers.py",
        "            if answer.in_doubt:\n",
        "            if False:\n",
        PEERS + "test_i37_who_owns_a_saga_now_does_not_say_that_a_call_was_not_begun_which_another_one_may_have_done",
    ),
    # Found again
    Mutant(
        "due times are scanned once (I23)",
        SERVER + "runner/keeper.py",
        "            await asyncio.sleep(SWEEP_INTERVAL_S)\n",
        "            await asyncio.sleep(3_600)\n",
        SEEDS,
    ),
    Mutant(
        "of what is due only the first page is found (I23)",
        SERVER + "runner/keeper.py",
        "            after = _place(page[-1])\n",
        "            break\n",
        KEEPER + "test_i23_the_sweep_goes_on_behind_the_first_page",
    ),
    Mutant(
        "recovery ends with the first page (I28)",
        SERVER + "runner/keeper.py",
        "            after = page[-1].key\n",
        "            break\n",
        KEEPER + "test_i28_recovery_goes_on_behind_the_first_page",
    ),
    Mutant(
        "recovery takes all sagas into memory at once (I40)",
        SERVER + "runner/keeper.py",
        "            await self._runner.places.room()\n",
        "",
        RUNNER + "test_i40_recovery_takes_no_more_sagas_into_memory_than_may_be_there",
    ),
    # Room in memory
    Mutant(
        "sagas that begin with a participant that hangs fill memory (I41)",
        SERVER + "runner/places.py",
        "queue.sagas >= max(free, self._own) and ",
        "False and ",
        PLACES + "test_i41_starts_that_begin_with_a_participant_that_hangs_are_refused_and_others_are_not",
        quick=True,
    ),
    Mutant(
        "sagas under way that wait for a participant that hangs fill memory (I41)",
        SERVER + "runner/places.py",
        "        if queue.sagas <= max(2 * free, self._own) or ",
        "        if True or ",
        PLACES + "test_calls_of_too_many_sagas_are_put_off_and_made_later_and_were_no_attempts",
    ),
    Mutant(
        "whoever answers is put off for one who hangs (I41)",
        SERVER + "runner/places.py",
        "        return queue.sagas >= max(each.sagas for each in self._queues.values())\n",
        "        return True\n",
        PLACES + "test_i41_nobody_is_put_off_for_one_who_has_more_sagas_waiting",
    ),
    Mutant(
        "calls that were put off come back all at once (I40)",
        SERVER + "runner/places.py",
        "max(self._last_return_s + 1 / PUT_OFFS_PER_S, now_s + PUT_OFF_S)",
        "now_s + PUT_OFF_S",
        PLACES + "test_i40_those_that_were_put_off_come_back_one_after_another",
    ),
    # Leases
    Mutant(
        "a lease that could not be renewed goes on (I24, I26)",
        LEASES_PY,
        "        if time.monotonic() >= held.until or partition in self._away:",
        "        if partition in self._away:",
        LEASES + "test_i24_who_could_not_renew_a_lease_in_time_owns_nothing_whatever_it_was_told",
    ),
    Mutant(
        "a lease begins when its renewal is answered (I26, I29)",
        LEASES_PY,
        "asked + self._lease_s\n",
        "time.monotonic() + self._lease_s\n",
        LEASES + "test_i24_a_lease_begins_when_it_is_asked_for_and_not_when_the_answer_comes",
    ),
    Mutant(
        "a lease is told to be over by the time of day (I29)",
        LEASES_PY,
        "import threading\nimport time\n",
        "import threading\nimport time as _time\n\n\n"
        "class time:\n    monotonic = staticmethod(lambda: _time.time())\n\n\n",
        LEASES + "test_i29_a_wall_clock_that_is_set_while_a_lease_lasts_makes_it_neither_longer_nor_shorter",
    ),
    Mutant(
        "a lease ends by the time of day of who holds it (I29)",
        LEASES_PY,
        "        self._renewed_at = asked\n",
        "        self._renewed_at = asked\n"
        "        end, set_end = time.time() + self._lease_s, 'update partition set expires = to_timestamp($1)'\n"
        "        await db.execute(f'{set_end} where owner = $2', end, self.id)\n",
        LEASES + "test_i29_replicas_whose_clocks_are_a_day_fast_and_slow_steal_nothing_and_keep_nothing",
    ),
    Mutant(
        "what was to be handed over and stays is not recovered (I28)",
        LEASES_PY,
        "        self._away = [id for id in gained if id in self._draining]",
        "        self._away = []",
        LEASES + "test_i26_what_was_to_be_handed_over_and_stays_is_let_go_of_before_it_is_gained",
    ),
    Mutant(
        "what was not renewed in time is not recovered (I28)",
        LEASES_PY,
        "before.epochs if time.monotonic() < before.until else {}",
        "before.epochs",
        LEASES + "test_i28_what_was_not_renewed_in_time_is_gained_again_in_the_same_epoch",
    ),
    Mutant(
        "partitions are handed over while calls of their sagas are in flight (I26)",
        LEASES_PY,
        "            busy = {partition_of(key, self._count) for key in self._busy()}\n",
        "            busy = {partition_of(key, self._count) for key in ()}\n",
        LEASES + "test_who_joins_gets_what_is_handed_over_once_its_calls_have_ended",
    ),
    Mutant(
        "whoever is stopped hands over while calls are in flight, if they take long",
        LEASES_PY,
        "{id for id in busy if self._retiring or now < ",
        "{id for id in busy if now < ",
        LEASES + "test_who_retires_waits_for_calls_however_long_they_take",
    ),
    Mutant(
        "a saga that was started on the way out is found by nobody (I23, I28)",
        SERVER + "engine/due.py",
        "    start_time = state.started.start_time or state.started.time\n",
        "    start_time = state.started.start_time\n",
        RUNNER + "test_i20_of_a_saga_that_is_started_on_the_way_out_only_the_start_is_recorded",
    ),
    Mutant(
        "a new owner has the epoch of the old one (I25)",
        STATEMENTS,
        "    owner = :owner, epoch = epoch + 1, claimed",
        "    owner = :owner, epoch = epoch, claimed",
        LEASES + "test_i25_a_replica_that_comes_back_owns_in_a_later_epoch",
    ),
    Mutant(
        "the owner's epoch is not looked at when PostgreSQL writes (I24)",
        SERVER + "store/postgres/sagas.py",
        "    if found.owner_epoch and append.head.epoch != found.owner_epoch:",
        "    if False:",
        "tests/store/test_postgres.py::test_i24_a_stale_owner_writes_nothing",
    ),
    Mutant(
        "statements are prepared in the midst of transactions, which do not count as idle then (I28)",
        SERVER + "store/postgres/transactions.py",
        "        await db.executemany(statement, [])\n",
        "        pass\n",
        "tests/store/test_stopped.py::test_everything_is_prepared_before_a_transaction_begins",
    ),
    Mutant(
        "a commit that waits for its standby is cancelled, and seen by others (I20)",
        SERVER + "store/postgres/transactions.py",
        "timeout=NEVER_S)",
        "timeout=self._timeout_s)",
        "tests/store/test_standby.py::test_i20_what_the_standby_does_not_have_is_told_to_nobody",
    ),
    Mutant(
        "a partition that is locked keeps others from all that are free (I28)",
        STATEMENTS,
        "    for update skip locked\n",
        "    for update\n",
        LEASES + "test_i28_a_transaction_of_a_dead_replica_that_hangs_keeps_others_from_its_partitions_only",
    ),
    Mutant(
        "whoever runs on after a restore writes in an epoch that there is not yet (I25)",
        SERVER + "store/postgres/sagas.py",
        "append.head.epoch != found.owner_epoch:",
        "append.head.epoch < found.owner_epoch:",
        "tests/store/test_postgres.py::"
        "test_i25_whoever_runs_on_after_a_restore_in_an_epoch_that_there_is_not_yet_writes_nothing",
    ),
    Mutant(
        "a partition changes its owner while a commit is under way (I24)",
        STATEMENTS,
        "    select id, epoch from partition where id = any(:partitions::integer[]) order by id for share\n",
        "    select id, epoch from partition where id = any(:partitions::integer[]) order by id\n",
        "tests/store/test_postgres.py::test_i24_a_change_of_owner_waits_for_a_commit_under_way",
    ),
)
