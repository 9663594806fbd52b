//! Tests of writer, reader, records, repair and checkpoints.
