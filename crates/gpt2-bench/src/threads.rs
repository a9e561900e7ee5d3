//! The threads study: the same work on different numbers of CPU threads, with BLAS and without, and by instruction set.

use crate::error::BenchError;
use crate::study::{Definition, Entry, Task, best, check_each_once};
use crate::words::{file_name, filled, settings};
use crate::work::{Corpus, Work};
use gpt2_backend::BackendChoice;
use gpt2_model::Precision;
use gpt2_records::{Conclusion, Row, STUDY_VERSION, Status, Study, StudyKind};
use gpt2_train::config::RunConfig;
use std::collections::BTreeMap;

/// How far apart the losses of two variants may be: they differ in how sums of `f32` are made up.
const LOSS_TOLERANCE: f64 = 1e-4;

/// Share of the fastest configuration's rate that a balanced one keeps.
const BALANCED: f64 = 0.8;

const THREADS: &str = "threads";
const VARIANT: &str = "variant";

/// What is compared.
#[derive(Debug, Clone)]
pub struct ThreadsStudy {
    /// The work: model, batch, length, steps, data and weights.
    pub config: RunConfig,
    /// Numbers of threads, each once.
    pub threads: Vec<usize>,
    /// Other programs: name, and command with `{threads}`, `{batch}`, `{seq}`, `{model}` and `{steps}`.
    pub peers: Vec<(String, String)>,
}

/// A way to compute on the CPU.
struct Variant {
    name: &'static str,
    backend: BackendChoice,
    precision: Precision,
    env: &'static [(&'static str, &'static str)],
    /// Why it cannot run here, if so.
    missing: Option<String>,
}

impl ThreadsStudy {
    /// The configurations: every variant on every number of threads.
    ///
    /// # Errors
    /// If no number of threads is given, or one is 0 or twice there.
    pub fn definition(&self) -> Result<Definition, BenchError> {
        check_each_once(THREADS, &self.threads)?;
        let mut entries = Vec::new();
        for variant in variants() {
            entries.extend(self.threads.iter().map(|&threads| self.entry(&variant, threads)));
        }
        for (name, command) in &self.peers {
            entries.extend(self.threads.iter().map(|&threads| self.peer(name, command, threads)));
        }
        Ok(Definition {
            version: STUDY_VERSION,
            kind: StudyKind::Threads,
            settings: settings(&self.config),
            axes: vec![VARIANT.to_owned(), THREADS.to_owned()],
            entries,
        })
    }

    fn entry(&self, variant: &Variant, threads: usize) -> Entry {
        let axes = axes(variant.name, threads);
        let name = format!("{}-{threads}", file_name(variant.name));
        if let Some(missing) = &variant.missing {
            return Entry {
                name,
                axes,
                task: Task::Skip(missing.clone()),
            };
        }
        let config = RunConfig {
            threads: Some(threads),
            backend: Some(variant.backend),
            precision: Some(variant.precision),
            ..self.config.clone()
        };
        let env = variant
            .env
            .iter()
            .map(|&(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        Entry {
            name,
            axes,
            task: Task::Ours(Box::new(Work {
                config,
                without_data: Corpus::Demo,
                counters: true,
                env,
                profiling: None,
            })),
        }
    }

    fn peer(&self, name: &str, command: &str, threads: usize) -> Entry {
        let config = RunConfig {
            threads: Some(threads),
            ..self.config.clone()
        };
        let command = filled(command, settings(&config));
        Entry {
            name: format!("{}-{threads}", file_name(name)),
            axes: BTreeMap::from([(THREADS.to_owned(), threads.to_string())]),
            task: Task::Peer {
                name: name.to_owned(),
                command,
            },
        }
    }
}

fn axes(variant: &str, threads: usize) -> BTreeMap<String, String> {
    BTreeMap::from([
        (VARIANT.to_owned(), variant.to_owned()),
        (THREADS.to_owned(), threads.to_string()),
    ])
}

/// The variants, those that this processor or build lacks among them.
fn variants() -> Vec<Variant> {
    let f32_by = |name, env, missing| Variant {
        name,
        backend: BackendChoice::Ndarray,
        precision: Precision::F32,
        env,
        missing,
    };
    // BLIS's numbers of its kernels (`arch_t` in `bli_type_defs.h`): 0 is for AVX-512, 3 for AVX2, 32 plain C.
    vec![
        f32_by("BLAS", &[], None),
        // matrixmultiply has threads of its own, which no setting of a run knows.
        f32_by(
            "no BLAS",
            &[("GPT2_CPU_BLAS", "none"), ("MATMUL_NUM_THREADS", "1")],
            None,
        ),
        f32_by(
            "BLAS, AVX-512",
            &[("BLIS_ARCH_TYPE", "0"), ("GPT2_CPU_VECTORS", "avx512")],
            lacks_avx512(),
        ),
        f32_by(
            "BLAS, AVX2",
            &[("BLIS_ARCH_TYPE", "3"), ("GPT2_CPU_VECTORS", "avx2")],
            lacks_avx2(),
        ),
        f32_by(
            "BLAS, scalar",
            &[("BLIS_ARCH_TYPE", "32"), ("GPT2_CPU_VECTORS", "scalar")],
            None,
        ),
        Variant {
            name: "bf16 on AMX",
            backend: BackendChoice::Flex,
            precision: Precision::Bf16,
            env: &[],
            // The process finds out whether there is a tile unit, and the backend in this build.
            missing: None,
        },
    ]
}

#[cfg(target_arch = "x86_64")]
fn lacks_avx512() -> Option<String> {
    (!std::arch::is_x86_feature_detected!("avx512f")).then(|| "this processor has no AVX-512".to_owned())
}

#[cfg(target_arch = "x86_64")]
fn lacks_avx2() -> Option<String> {
    let has = std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma");
    (!has).then(|| "this processor has no AVX2 with FMA".to_owned())
}

#[cfg(not(target_arch = "x86_64"))]
fn lacks_avx512() -> Option<String> {
    Some("AVX-512 is of x86-64 processors".to_owned())
}

#[cfg(not(target_arch = "x86_64"))]
fn lacks_avx2() -> Option<String> {
    Some("AVX2 is of x86-64 processors".to_owned())
}

/// Computes what follows from the rows: speed-ups over the first variant on the fewest threads, whether losses agree, and
/// which configuration for which goal.
///
/// Returns the variants whose losses do not agree.
pub fn conclude(study: &mut Study) -> Option<String> {
    let threads = |row: &Row| row.axes.get(THREADS)?.parse::<f64>().ok();
    let done = |row: &&Row| row.status == Status::Done;
    let fewest = study
        .rows
        .iter()
        .filter(done)
        .filter(|row| row.peer.is_none())
        .min_by(|a, b| {
            threads(a)
                .unwrap_or(f64::MAX)
                .total_cmp(&threads(b).unwrap_or(f64::MAX))
        });
    study.baseline = fewest.map(|row| row.name.clone());
    study.derive();
    study.conclusions = recommendation(&study.rows);
    let (note, disagreement) = agreement(&study.rows);
    study.notes.extend(note);
    disagreement
}

/// Fastest, balanced, low priority: of our own rows.
fn recommendation(rows: &[Row]) -> Vec<Conclusion> {
    let done: Vec<&Row> = rows
        .iter()
        .filter(|row| row.status == Status::Done && row.peer.is_none())
        .collect();
    let rate = |row: &Row| row.figures.as_ref().map(|figures| figures.tokens_per_sec);
    let threads = |row: &Row| row.axes.get(THREADS).and_then(|threads| threads.parse::<f64>().ok());
    let said = |row: &Row| {
        let figures = row.figures.as_ref();
        figures.map_or_else(String::new, |figures| {
            format!(
                "{:.0} tokens/s, {:.2} s a step, {:.0} MiB",
                figures.tokens_per_sec,
                figures.step_ms.mean / 1e3,
                figures.peak_memory_bytes as f64 / f64::from(1 << 20)
            )
        })
    };
    let fastest = done.iter().filter_map(|row| rate(row)).fold(0.0, f64::max);
    let fewest = done.iter().filter_map(|row| threads(row)).fold(f64::MAX, f64::min);
    let enough = done.iter().copied().filter(|row| rate(row) >= Some(BALANCED * fastest));
    let single = done.iter().copied().filter(|row| threads(row) == Some(fewest));
    vec![
        best("fastest", done.iter().copied(), rate, said),
        // Fewer threads weigh more than any rate.
        best(
            "balanced: the fewest threads within 80 % of the fastest",
            enough,
            |row| Some(rate(row)? / fastest - threads(row)?),
            said,
        ),
        best("low priority: the fewest threads", single, rate, said),
    ]
}

/// What to say of the losses of the `f32` variants, and whether they differ too much.
fn agreement(rows: &[Row]) -> (Option<String>, Option<String>) {
    let of_ours: Vec<(&str, &[f64])> = rows
        .iter()
        .filter(|row| row.peer.is_none() && row.axes.get(VARIANT).is_none_or(|variant| !variant.contains("bf16")))
        .filter_map(|row| Some((row.name.as_str(), row.figures.as_ref()?.losses.as_slice())))
        .collect();
    let Some((&(first, expected), others)) = of_ours.split_first() else {
        return (None, None);
    };
    let apart = |losses: &[f64]| {
        losses
            .iter()
            .zip(expected)
            .map(|(a, b)| (a - b).abs())
            .fold(0.0, f64::max)
    };
    let worst = others
        .iter()
        .map(|&(name, losses)| (name, apart(losses)))
        .max_by(|a, b| a.1.total_cmp(&b.1));
    match worst {
        Some((name, apart)) if apart > LOSS_TOLERANCE => {
            let said = format!(
                "the losses of {name} and {first} differ by {apart:.1e}, expected at most {LOSS_TOLERANCE:.0e}"
            );
            (Some(said.clone()), Some(said))
        }
        Some((_, apart)) => {
            let said = format!(
                "Losses of all {} f32 configurations agree within {apart:.1e} in each step.",
                of_ours.len()
            );
            (Some(said), None)
        }
        None => (None, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gpt2_base::stats::Summary;
    use gpt2_records::Figures;

    fn row(variant: &str, threads: usize, step_ms: &[f64], losses: &[f64]) -> Row {
        let mean = step_ms.iter().sum::<f64>() / step_ms.len() as f64;
        Row {
            name: format!("{variant}-{threads}"),
            peer: None,
            axes: axes(variant, threads),
            status: Status::Done,
            reason: None,
            predicted_memory_bytes: None,
            process_sec: None,
            figures: Some(Figures {
                tokens_per_sec: 256.0 / mean * 1e3,
                step_ms: Summary {
                    mean,
                    p50: mean,
                    ..Summary::default()
                },
                losses: losses.to_vec(),
                peak_memory_bytes: 1 << 20,
                ..Figures::default()
            }),
            derived: None,
        }
    }

    fn study(rows: Vec<Row>) -> Study {
        let made = serde_json::json!({
            "timestamp_utc": "", "command_line": "", "gpt2_version": "", "git_commit": null, "burn_version": "",
            "host": {"hostname": null, "os": null, "cpu": null, "cores": 1, "memory_bytes": 1}, "devices": [],
        });
        Study {
            version: STUDY_VERSION,
            kind: StudyKind::Threads,
            made: serde_json::from_value(made).unwrap(),
            settings: BTreeMap::new(),
            axes: vec![VARIANT.into(), THREADS.into()],
            baseline: None,
            rows,
            conclusions: Vec::new(),
            notes: Vec::new(),
            profile: None,
        }
    }

    /// Steps of a published study of 124M on a CPU: its own table says "about 11.5 s" for one thread, where the mean of its
    /// rows is 12.27 s.
    const ONE_THREAD: [f64; 10] = [
        13_199.73, 12_088.12, 12_511.87, 11_633.46, 14_561.65, 12_558.19, 12_874.17, 11_143.64, 11_098.38, 10_981.01,
    ];
    const FOUR_THREADS: [f64; 10] = [
        4_698.63, 3_895.10, 3_876.27, 3_942.91, 4_001.90, 3_958.23, 3_831.97, 3_916.89, 3_936.57, 3_799.79,
    ];
    const EIGHT_THREADS: [f64; 10] = [
        3_896.70, 2_915.41, 2_990.39, 3_046.20, 3_204.75, 3_554.02, 3_215.70, 3_673.17, 3_270.47, 3_585.95,
    ];

    #[test]
    fn a_mean_is_the_mean_of_its_own_rows() {
        let mean = Summary::of(&ONE_THREAD).unwrap().mean;
        assert!((mean / 1e3 - 12.27).abs() <= 0.005, "{mean}");
    }

    #[test]
    fn the_recommendation_follows_from_the_rows() {
        let mut study = study(vec![
            row("BLAS", 1, &ONE_THREAD, &[5.3, 4.4]),
            row("BLAS", 4, &FOUR_THREADS, &[5.3, 4.4]),
            row("BLAS", 8, &EIGHT_THREADS, &[5.3, 4.4]),
        ]);
        assert_eq!(conclude(&mut study), None);
        let rows: Vec<_> = study.conclusions.iter().map(|one| one.row.clone().unwrap()).collect();
        assert_eq!(rows, ["BLAS-8", "BLAS-4", "BLAS-1"]);
        assert_eq!(study.baseline.as_deref(), Some("BLAS-1"));
        let derived = study.rows[2].derived.unwrap();
        assert!((derived.speedup.unwrap() - 3.68).abs() <= 0.005);
        assert!((derived.efficiency.unwrap() - 0.46).abs() <= 0.005);
        assert!(study.notes[0].starts_with("Losses of all 3 f32 configurations agree within 0"));
    }

    #[test]
    fn losses_that_differ_are_named() {
        let mut study = study(vec![
            row("BLAS", 1, &[10.0], &[5.3, 4.4]),
            row("BLAS, scalar", 1, &[20.0], &[5.3, 4.401]),
        ]);
        let said = conclude(&mut study).unwrap();
        assert!(
            said.starts_with("the losses of BLAS, scalar-1 and BLAS-1 differ by 1.0e-3"),
            "{said}"
        );
    }

    #[test]
    fn every_variant_runs_on_every_number_of_threads() {
        let study = ThreadsStudy {
            config: RunConfig::default(),
            threads: vec![1, 2],
            peers: vec![("PyTorch".into(), "python step.py --threads {threads}".into())],
        };
        let definition = study.definition().unwrap();
        assert_eq!(definition.entries.len(), 14);
        let last = definition.entries.last().unwrap();
        assert_eq!(last.name, "pytorch-2");
        assert!(matches!(&last.task, Task::Peer { command, .. } if command == "python step.py --threads 2"));
        let twice = ThreadsStudy {
            threads: vec![2, 2],
            ..study
        };
        assert_eq!(
            twice.definition().unwrap_err().to_string(),
            "`threads` is 2, expected numbers of 1 or more, each once"
        );
    }
}
