"""The orchestrators that share the store, for operators: who owns what, since when, and how late due work is."""

from __future__ import annotations

from amends.v1 import operator_pb2 as pb
from amends_server.clock import Clock
from amends_server.convert.times import set_signed_duration, set_time
from amends_server.store.leases import Ownership
from amends_server.store.protocol import Store
from amends_server.store.sharing import StoredPartition, StoredReplica


class Replicas:
    """Knows them from the store, and this one also where the store does not know any."""

    def __init__(self, store: Store, ownership: Ownership, clock: Clock) -> None:
        self._store = store
        self._ownership = ownership
        self._clock = clock
        self._start_time = clock.now()

    async def list(self) -> pb.ListReplicasResponse:
        """Return all of them.

        :raises StoreError: if the store cannot be read.
        """
        sharing = await self._store.sharing(self._clock.now())
        response = pb.ListReplicasResponse()
        for replica in sharing.replicas:
            self._write_replica(response.replicas.add(), replica)
        for partition in sharing.partitions:
            self._write_partition(response.partitions.add(), partition)
        if not sharing.replicas:
            self._write_alone(response)
        return response

    def _write_replica(self, to: pb.Replica, replica: StoredReplica) -> None:
        to.replica_id, to.address = replica.id, replica.address
        to.answering = replica.id == self._ownership.id
        set_time(to.start_time, replica.start_time)
        set_signed_duration(to.lease_left, replica.lease_left_us)

    def _write_partition(self, to: pb.Partition, partition: StoredPartition) -> None:
        to.number, to.replica_id, to.epoch = partition.number, partition.owner, partition.epoch
        to.due_count = partition.due_count
        if partition.claim_time is not None:
            set_time(to.claim_time, partition.claim_time)
        if partition.lease_left_us is not None:
            set_signed_duration(to.lease_left, partition.lease_left_us)
        if partition.oldest_due_time is not None:
            set_time(to.oldest_due_time, partition.oldest_due_time)

    def _write_alone(self, response: pb.ListReplicasResponse) -> None:
        """Write that all is this one's, since it began."""
        alone = response.replicas.add(replica_id=self._ownership.id, address=self._ownership.address, answering=True)
        set_time(alone.start_time, self._start_time)
        for partition in response.partitions:
            partition.replica_id = alone.replica_id
            set_time(partition.claim_time, self._start_time)
