"""The simulated world in which sagas meet every fault: the real server on a simulated disk, network and clock."""
