//! Alone in its process: whatever else uses a GPU keeps the driver loaded.

use gpt2_backend::{BackendKind, devices};
use std::thread;

/// A driver that is unloaded leaves behind what is called at the end of each thread that used it.
#[test]
fn threads_that_looked_for_gpus_end() {
    for _ in 0..4 {
        let looked = thread::spawn(|| devices(BackendKind::Wgpu).map_or(0, |found| found.len()));
        looked.join().expect("looking finds devices or none");
    }
}
