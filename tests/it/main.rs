//! Tests of the whole, in one program: a file a feature.

mod keys;
mod layers;
