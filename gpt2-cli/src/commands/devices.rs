//! `gpt2 devices`: what a run could compute on here.

use crate::backend::{BACKENDS, Chosen, devices};
use crate::error::CliError;
use gpt2_train::config::BackendChoice;
use gpt2_train::quantity::bytes;

/// Prints every backend's devices, or why it has none, and what `--backend auto` takes.
pub(crate) fn run() -> Result<(), CliError> {
    for backend in BACKENDS {
        match devices(backend) {
            Ok(devices) => {
                for device in devices {
                    let memory = device.memory_bytes.map_or_else(|| "memory unknown".to_owned(), bytes);
                    let note = device.note.map(|note| format!(", {note}")).unwrap_or_default();
                    println!("{backend:<8} --device {}  {} ({memory}{note})", device.index, device.name);
                }
            }
            Err(reason) => println!("{backend:<8} none: {reason}"),
        }
    }
    let auto = Chosen::decide(BackendChoice::Auto, 0)?;
    println!("auto     takes {}", auto.backend);
    Ok(())
}
