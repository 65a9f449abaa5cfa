//! Properties of every emitter: random documents read back equal, in pieces or whole, typed or from bytes.
