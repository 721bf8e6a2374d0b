//! What only DynamoDB can do to a sink.
