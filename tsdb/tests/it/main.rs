//! Behaviour of the storage as its users see it, one module per behaviour.

mod append_and_restart;
mod support;
