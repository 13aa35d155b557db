"""The gRPC services: requests are checked here and carried out by the runner; refusals become statuses."""
