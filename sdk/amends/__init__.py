"""The SDK: define sagas, start them, and serve participants."""
