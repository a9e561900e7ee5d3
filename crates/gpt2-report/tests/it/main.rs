//! Tests of the crate from outside, through its public face alone.

mod figures;
mod files;
mod made_up;
mod page;
mod runs;
mod tables;
