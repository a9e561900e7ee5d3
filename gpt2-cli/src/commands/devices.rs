//! `gpt2 devices`: what a run could compute on here.

use crate::error::CliError;
use crate::hints::build_command;
use crate::printer::print;
use gpt2_backend::{BackendChoice, BackendKind, Chosen, DeviceInfo, DeviceKind, Unavailable, devices};
use gpt2_base::units::bytes;

/// Prints every backend's devices, or why it has none, and what `--backend auto` takes.
pub(crate) fn run() -> Result<(), CliError> {
    let mut lines = Vec::new();
    for backend in BackendKind::ALL {
        match devices(backend) {
            Ok(devices) => {
                for device in devices {
                    let memory = device.memory_bytes.map_or_else(|| "memory unknown".to_owned(), bytes);
                    let DeviceInfo { index, name, kind, .. } = &device;
                    let note = match kind {
                        DeviceKind::Cpu | DeviceKind::Gpu => "",
                        DeviceKind::SoftwareGpu => ", software",
                    };
                    lines.push(format!("{backend:<8} --device {index}  {name} ({memory}{note})\n"));
                }
            }
            Err(Unavailable::NotBuilt) => {
                let command = build_command(backend);
                lines.push(format!(
                    "{backend:<8} none: not in this build; build it in with `{command}`\n"
                ));
            }
            Err(reason) => lines.push(format!("{backend:<8} none: {reason}\n")),
        }
    }
    lines.push(match Chosen::decide(BackendChoice::Auto, 0) {
        Ok(auto) => format!("auto     takes {}\n", auto.backend),
        Err(_) => "auto     takes none of them\n".to_owned(),
    });
    print(lines.concat().as_bytes())
}
