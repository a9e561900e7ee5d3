//! Every kernel that a launch may ask for is compiled by NVIDIA's run-time compiler, for each generation of GPUs. That takes
//! the compiler's library, but no device.
//!
//! Without the library the test says so and passes, unless `GPT2_REQUIRE` names `nvrtc`.

use crate::WIDEST_ROW;
use crate::ahead::{architecture, compile, text};
use crate::launch::{ComputeCapability, Kernel};
use crate::{adamw, attention, classifier, clock, columns, embedding, gelu, layer_norm, product, scale};
use cudarc::nvrtc::sys;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Widths of models that kernels are compiled for: the least, the smallest and the largest GPT-2's, and the most.
pub(crate) const CHANNELS: [usize; 4] = [8, 768, 1600, WIDEST_ROW];

/// The values of two flags.
pub(crate) const BOTH_FLAGS: [(bool, bool); 4] = [(false, false), (false, true), (true, false), (true, true)];

/// A100, desktop Ampere, desktop Ada and H100, each with the dynamic shared memory that a block may have (CUDA C++ Programming
/// Guide, "Technical Specifications per Compute Capability").
const DEVICES: [(ComputeCapability, usize); 4] = [
    (ComputeCapability { major: 8, minor: 0 }, 163 * 1024),
    (ComputeCapability { major: 8, minor: 6 }, 99 * 1024),
    (ComputeCapability { major: 8, minor: 9 }, 99 * 1024),
    (ComputeCapability { major: 9, minor: 0 }, 227 * 1024),
];

fn kernels(capability: ComputeCapability) -> Vec<Kernel> {
    [
        adamw::kernels(),
        attention::kernels(capability),
        classifier::kernels(),
        vec![clock::lap_kernel()],
        columns::kernels(),
        embedding::kernels(),
        gelu::kernels(),
        layer_norm::kernels(),
        product::kernels(capability),
        scale::kernels(),
    ]
    .concat()
}

#[test]
fn every_kernel_compiles() {
    // SAFETY: looks for the library and loads it; it has no other effect.
    let found = unsafe { sys::is_culib_present() };
    let required = std::env::var("GPT2_REQUIRE").is_ok_and(|names| names.split(',').any(|name| name == "nvrtc"));
    assert!(
        found || !required,
        "GPT2_REQUIRE asks for nvrtc: no libnvrtc.so in LD_LIBRARY_PATH"
    );
    if !found {
        eprintln!("no libnvrtc.so in LD_LIBRARY_PATH: no kernel compiled");
        return;
    }

    let programs = programs();
    let next = AtomicUsize::new(0);
    let failures = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some(program) = programs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Err(problem) = program.check() {
                        failures.lock().unwrap().push(problem);
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    eprintln!("{} programs compiled", programs.len());
    assert!(
        failures.is_empty(),
        "{} of {} programs fail:\n{}",
        failures.len(),
        programs.len(),
        failures.join("\n")
    );
}

/// A text for an architecture, and the kernels that are launched from it.
struct Program {
    architecture: String,
    source: String,
    defines: Vec<(&'static str, usize)>,
    entries: BTreeSet<&'static str>,
}

/// Each text once, though most have several kernels.
fn programs() -> Vec<Program> {
    let mut programs = BTreeMap::new();
    for (capability, _) in DEVICES {
        for kernel in kernels(capability) {
            let (architecture, source) = (architecture(capability), kernel.source());
            let program = programs
                .entry((architecture.clone(), source.clone()))
                .or_insert_with(|| Program {
                    architecture,
                    source,
                    defines: kernel.defines().to_vec(),
                    entries: BTreeSet::new(),
                });
            program.entries.insert(kernel.entry());
        }
    }
    programs.into_values().collect()
}

impl Program {
    fn check(&self) -> Result<(), String> {
        let Self {
            architecture,
            source,
            defines,
            entries,
        } = self;
        let ptx = compile(source, &[architecture.clone(), "-lineinfo".to_owned()]).map(|ptx| text(&ptx));
        let missing = |ptx: &String| {
            entries
                .iter()
                .find(|entry| !ptx.contains(&format!(".entry {entry}(")))
                .copied()
        };
        let problem = match ptx.as_ref().map(missing) {
            Ok(None) => return Ok(()),
            Ok(Some(entry)) => format!("no kernel `{entry}` in it"),
            Err(log) => log.clone(),
        };
        Err(format!("{entries:?} for {architecture} with {defines:?}: {problem}"))
    }
}

#[test]
fn shared_memory_is_what_a_block_may_have() {
    for (capability, most) in DEVICES {
        for kernel in kernels(capability) {
            let bytes = kernel.shared_memory_bytes();
            assert!(bytes <= most, "{}: {bytes} of {most} on {capability:?}", kernel.entry());
        }
    }
}

#[test]
fn no_kernel_and_no_variant_is_left_out() {
    let all: Vec<Kernel> = DEVICES
        .into_iter()
        .flat_map(|(capability, _)| kernels(capability))
        .collect();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cuda");
    let mut files = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if !path
            .extension()
            .is_some_and(|extension| extension == "cu" || extension == "cuh")
        {
            continue;
        }
        files += 1;
        let text = std::fs::read_to_string(&path).unwrap();
        let users: Vec<&Kernel> = all
            .iter()
            .filter(|kernel| kernel.files().contains(&text.as_str()))
            .collect();
        assert!(!users.is_empty(), "no kernel is compiled from {}", path.display());
        for name in entries(&text) {
            let compiled = users.iter().any(|kernel| kernel.entry() == name);
            assert!(compiled, "{}: `{name}` is never compiled", path.display());
        }
        for (name, value) in conditions(&text) {
            let defines = |kernel: &&Kernel| {
                kernel
                    .defines()
                    .iter()
                    .find(|define| define.0 == name)
                    .map(|define| define.1)
            };
            let any = |wanted: Option<usize>| users.iter().any(|kernel| defines(kernel) == wanted);
            let variants = match value {
                Some(value) => any(Some(value)),
                None => any(None) && users.iter().any(|kernel| defines(kernel).is_some()),
            };
            assert!(
                variants,
                "{}: not both sides of {name} {value:?} are compiled",
                path.display()
            );
        }
    }
    assert!(files > 20, "{files} sources");
}

/// Names of the kernels of a source.
fn entries(text: &str) -> Vec<&str> {
    let names = text.split("__global__").skip(1).map(|declaration| {
        // `void __launch_bounds__(...) name(...)`
        let bounds = declaration
            .find("__launch_bounds__(")
            .expect("every kernel has launch bounds");
        let rest = &declaration[bounds + "__launch_bounds__(".len()..];
        let mut depth = 1;
        let end = rest.find(|letter| {
            depth += i32::from(letter == '(') - i32::from(letter == ')');
            depth == 0
        });
        let rest = rest[end.expect("parentheses are closed") + 1..].trim_start();
        rest.split('(').next().expect("a declaration has parameters").trim()
    });
    names.collect()
}

/// What a source asks of the preprocessor: `#ifdef` and `#ifndef` of a name, or the name's equality to a number.
fn conditions(text: &str) -> Vec<(&str, Option<usize>)> {
    let mut found = Vec::new();
    for line in text.lines().map(str::trim_start).filter(|line| line.starts_with('#')) {
        let mut words = line.trim_start_matches('#').split_whitespace();
        match words.next() {
            Some("ifdef" | "ifndef") => found.push((words.next().expect("a name follows"), None)),
            Some("if" | "elif") => {
                let words: Vec<_> = words.collect();
                for part in words.windows(3) {
                    if let [name, "==", value] = part {
                        found.push((name, Some(value.parse().expect("names are compared with numbers"))));
                    }
                }
            }
            _ => {}
        }
    }
    found
}
