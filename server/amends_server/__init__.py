"""The orchestrator: engine, store and gRPC services."""
