//! Made-up studies and runs, for tests and for looking at.

use gpt2_base::stats::Summary;
use gpt2_records::{
    Breakdown, Ceilings, Completion, Conclusion, Derived, Figures, GpuUse, Hardware, Host, KindTime, LossPoint, Made,
    OperationTime, Phases, Profile, RankStep, Row, RunSummary, STUDY_VERSION, Scheduler, Status, StepRecord, Study,
    StudyKind, SubsetSizes, TopDown, TopDownSlots, TrainingConfig, TrainingMetrics,
};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::io;
use std::path::Path;

const GIB: u64 = 1 << 30;

/// A number between 0 and 1 that follows from `seed` alone.
fn noise(seed: u64) -> f64 {
    let mixed = (seed ^ 0x9e37_79b9_7f4a_7c15).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    ((mixed ^ (mixed >> 29)).wrapping_mul(0x94d0_49bb_1331_11eb) >> 11) as f64 / (1_u64 << 53) as f64
}

fn host() -> Host {
    Host {
        hostname: Some("made-up-host".to_owned()),
        os: Some("Linux 6.12".to_owned()),
        cpu: Some("Made-up Processor 9000".to_owned()),
        cores: 16,
        memory_bytes: 128 * GIB,
    }
}

/// A study without rows.
pub(crate) fn empty(kind: StudyKind) -> Study {
    Study {
        version: STUDY_VERSION,
        kind,
        made: Made {
            timestamp_utc: "2026-11-27T12:00:00Z".to_owned(),
            command_line: "gpt2 bench made-up --out studies/made-up".to_owned(),
            gpt2_version: "0.1.0".to_owned(),
            git_commit: Some("0123456789abcdef0123456789abcdef01234567".to_owned()),
            burn_version: "0.21.0".to_owned(),
            host: host(),
            devices: vec!["Made-up GPU 80 GB".to_owned()],
        },
        settings: [
            ("model", "gpt2-124m (made up)"),
            ("seq", "1024"),
            ("backend", "cuda"),
            ("steps", "50"),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into(),
        axes: Vec::new(),
        baseline: None,
        rows: Vec::new(),
        conclusions: Vec::new(),
        notes: vec!["Every number in this study is made up.".to_owned()],
        profile: None,
    }
}

/// Figures of 50 steps of `step_ms` on average, after a warm-up of `settling_sec`.
pub(crate) fn figures(
    seed: u64,
    tokens_per_step: u64,
    step_ms: f64,
    settling_sec: f64,
    peak_memory_bytes: u64,
) -> Figures {
    let steps: Vec<f64> = (0..50)
        .map(|i| step_ms * (0.97 + 0.06 * noise(seed * 100 + i)))
        .collect();
    let mut sorted = steps.clone();
    sorted.sort_by(f64::total_cmp);
    let mean = steps.iter().sum::<f64>() / 50.0;
    let std = (steps.iter().map(|ms| (ms - mean).powi(2)).sum::<f64>() / 49.0).sqrt();
    let losses: Vec<f64> = (0..60)
        .map(|i| 10.9 - 3.0 * (1.0 - (-f64::from(i) / 15.0).exp()))
        .collect();
    Figures {
        program: "gpt2 0.1.0".to_owned(),
        device: "Made-up GPU 80 GB".to_owned(),
        tokens_per_step,
        step_ms: Summary {
            count: 50,
            mean,
            std,
            min: sorted[0],
            p50: sorted[25],
            p95: sorted[47],
            max: sorted[49],
        },
        tokens_per_sec: tokens_per_step as f64 / sorted[25] * 1e3,
        timed_sec: mean * 50.0 / 1e3,
        warmup_steps: 10,
        warmup_sec: settling_sec + step_ms / 100.0,
        first_step_sec: settling_sec * 0.8,
        settled_after_steps: Some(4),
        settling_cost_sec: Some(settling_sec),
        peak_memory_bytes,
        driver_memory_bytes: Some(peak_memory_bytes + GIB),
        mfu: Some(0.2 + 0.2 * noise(seed)),
        loss_last: losses.last().copied(),
        losses,
        all_step_ms: steps,
        val_losses: vec![(0, 10.95), (20, 8.8), (40, 8.15), (60, 7.95)],
        gpu: Some(GpuUse {
            samples: 40,
            utilisation_percent: 90.0 + 9.0 * noise(seed + 7),
            clock_mhz: 1700.0 + 80.0 * noise(seed + 8),
            power_watts: 500.0 + 150.0 * noise(seed + 9),
        }),
        counters: [
            ("context switches/s", 120.5),
            ("page faults/s", 3.25),
            ("task clock (CPUs used)", 1.98),
        ]
        .map(|(name, value)| (name.to_owned(), value * (0.5 + noise(seed))))
        .into(),
        breakdown: None,
    }
}

fn row(name: String, axes: &[(&str, String)]) -> Row {
    Row {
        name,
        peer: None,
        axes: axes
            .iter()
            .map(|(axis, value)| ((*axis).to_owned(), value.clone()))
            .collect(),
        status: Status::Done,
        reason: None,
        predicted_memory_bytes: None,
        process_sec: None,
        figures: None,
        derived: None,
    }
}

fn conclusions(rows: &[(&str, &str)]) -> Vec<Conclusion> {
    rows.iter()
        .map(|(goal, row)| Conclusion {
            goal: (*goal).to_owned(),
            row: Some((*row).to_owned()),
            because: "made-up figures say so: 123,456 tokens/s, 20.1 GiB".to_owned(),
        })
        .collect()
}

/// Thirty configurations with long names: two precisions, three kinds of recomputing, four batches, and a peer compiled in
/// two ways. One ran out of memory, one was too slow, one had no meaning.
pub(crate) fn sweep() -> Study {
    let mut rows = Vec::new();
    for precision in ["f32", "bf16"] {
        for recompute in ["none", "attention", "block"] {
            for batch in [4_u64, 8, 16, 32] {
                let name = format!(
                    "gpt2-124m-cuda-{precision}-recompute-{recompute}-operations-kernels-batch-{batch}-seq-1024"
                );
                let axes = [
                    ("precision", precision.to_owned()),
                    ("recompute", recompute.to_owned()),
                    ("batch", batch.to_string()),
                ];
                rows.push((row(name, &axes), precision, recompute, "none", batch));
            }
        }
    }
    for compile in ["none", "default"] {
        for batch in [4_u64, 8, 16] {
            let name = format!("pytorch-gpt2-124m-bf16-compile-{compile}-batch-{batch}-seq-1024");
            let axes = [
                ("precision", "bf16".to_owned()),
                ("compile", compile.to_owned()),
                ("batch", batch.to_string()),
            ];
            let peer = Row {
                peer: Some("PyTorch".to_owned()),
                ..row(name, &axes)
            };
            rows.push((peer, "bf16", "none", compile, batch));
        }
    }
    let rows = rows
        .into_iter()
        .zip(1..)
        .map(|((mut row, precision, recompute, compile, batch), seed)| {
            let slow = if precision == "f32" { 2.1 } else { 1.0 };
            let slow = slow
                * match recompute {
                    "block" => 1.3,
                    "attention" => 1.1,
                    _ => 1.0,
                };
            let slow = slow
                * match (row.peer.is_some(), compile) {
                    (false, _) => 1.0,
                    (true, "none") => 1.9,
                    _ => 1.05,
                };
            let per_sequence = match recompute {
                "block" => 300,
                "attention" => 700,
                _ => 1400,
            } << 20;
            let memory = 2 * GIB + batch * per_sequence * if precision == "f32" { 2 } else { 1 };
            let settling_sec = if compile == "default" {
                38.0 + 5.0 * noise(seed)
            } else {
                0.4 + noise(seed)
            };
            row.predicted_memory_bytes = Some(memory);
            row.process_sec = Some(60.0 + 10.0 * noise(seed));
            match seed {
                4 => {
                    row.status = Status::OutOfMemory;
                    row.reason = Some("CUDA_ERROR_OUT_OF_MEMORY: out of memory".to_owned());
                }
                12 => {
                    row.status = Status::TimedOut;
                    row.reason = Some("ended after 600 s".to_owned());
                }
                24 => {
                    row.status = Status::Skipped;
                    row.reason = Some("made up: no meaning | with `this`".to_owned());
                }
                _ => {
                    let step_ms = slow * (6.0 + batch as f64 * 1024.0 / 210.0);
                    let mut figures = figures(seed, batch * 1024, step_ms, settling_sec, memory);
                    if row.peer.is_some() {
                        "PyTorch 2.9.0".clone_into(&mut figures.program);
                    }
                    if seed == 26 {
                        figures.settling_cost_sec = None;
                        figures.settled_after_steps = None;
                    }
                    row.figures = Some(figures);
                }
            }
            row
        });
    let mut study = Study {
        axes: ["precision", "recompute", "compile", "batch"].map(str::to_owned).into(),
        rows: rows.collect(),
        ..empty(StudyKind::Sweep)
    };
    let (first, fastest) = (study.rows[0].name.clone(), study.rows[14].name.clone());
    study.conclusions = conclusions(&[("most tokens a second", &fastest), ("least memory", &first)]);
    study.conclusions.push(Conclusion {
        goal: "fastest that pays for its warm-up within 100 steps".to_owned(),
        row: None,
        because: "no row does".to_owned(),
    });
    study.baseline = Some(first);
    study.derive();
    study
}

/// Four variants on 1, 2, 4 and 8 threads.
pub(crate) fn threads() -> Study {
    let mut rows = Vec::new();
    for (variant, rate) in [
        ("BLAS, AVX-512", 420.0),
        ("BLAS, AVX2", 350.0),
        ("no BLAS, AVX2", 160.0),
        ("no BLAS, scalar", 40.0),
    ] {
        for threads in [1_u64, 2, 4, 8] {
            let axes = [("variant", variant.to_owned()), ("threads", threads.to_string())];
            let mut row = row(format!("{variant}, {threads} threads"), &axes);
            let speedup = threads as f64 / (1.0 + 0.06 * (threads as f64 - 1.0));
            row.figures = Some(figures(
                threads + rate as u64,
                256,
                256.0 / (rate * speedup) * 1e3,
                0.3,
                3 * GIB,
            ));
            rows.push(row);
        }
    }
    let mut study = Study {
        axes: vec!["variant".to_owned(), "threads".to_owned()],
        baseline: Some(rows[12].name.clone()),
        rows,
        conclusions: conclusions(&[
            ("fastest", "BLAS, AVX-512, 8 threads"),
            ("balanced", "BLAS, AVX-512, 4 threads"),
        ]),
        ..empty(StudyKind::Threads)
    };
    study.settings.insert("backend".to_owned(), "ndarray".to_owned());
    study
        .notes
        .push("No hardware counters: /proc/sys/kernel/perf_event_paranoid is 4.".to_owned());
    study.derive();
    study
}

/// The same work by two programs.
pub(crate) fn fixed_work() -> Study {
    let mut rows = Vec::new();
    for (name, peer, step_ms) in [("gpt2", None, 60.0), ("pytorch", Some("PyTorch".to_owned()), 66.0)] {
        let mut row = Row {
            peer,
            ..row(name.to_owned(), &[("program", name.to_owned())])
        };
        let figures = figures(step_ms as u64, 8192, step_ms, 1.5, 12 * GIB);
        row.figures = Some(figures);
        rows.push(row);
    }
    let mut study = Study {
        axes: vec!["program".to_owned()],
        baseline: Some("pytorch".to_owned()),
        rows,
        ..empty(StudyKind::FixedWork)
    };
    study.derive();
    study
}

/// Steps of `ranks` ranks, of which the last is the slowest.
fn breakdown(ranks: usize, step_ms: f64, compute_ms: f64) -> Option<Breakdown> {
    let of_rank = |rank: usize| {
        let compute_ms = compute_ms * (0.9 + 0.1 * (rank + 1) as f64 / ranks as f64) - 0.6;
        let communication_ms = 0.8 * (step_ms - compute_ms).max(0.0);
        RankStep {
            step: 1,
            rank,
            step_ms,
            data_wait_ms: 0.1,
            host_to_device_ms: 0.2,
            rank_wait_ms: (ranks > 1).then(|| (step_ms - compute_ms - communication_ms - 0.3).max(0.0)),
            communication_ms: (ranks > 1).then_some(communication_ms),
            overlapped_communication_ms: (ranks > 1).then_some(1.0),
            compute_ms,
            loss: 8.0,
            peak_memory_bytes: Some(20 * GIB + rank as u64),
            device_mem_bytes: None,
            device_reserved_bytes: None,
        }
    };
    Breakdown::of(&(0..ranks).map(of_rank).collect::<Vec<_>>())
}

/// Two batches on 1, 2, 4 and 8 devices.
pub(crate) fn scaling() -> Study {
    let mut rows = Vec::new();
    for batch in [64_u64, 128] {
        for devices in [1_u64, 2, 4, 8] {
            let axes = [("batch", batch.to_string()), ("devices", devices.to_string())];
            let mut row = row(format!("batch-{batch}-devices-{devices}"), &axes);
            let speedup = devices as f64 / (1.0 + (6.4 / batch as f64) * (devices as f64 - 1.0));
            let mut figures = figures(batch + devices, batch * 1024, batch as f64 / speedup, 1.0, 20 * GIB);
            figures.breakdown = breakdown(devices as usize, figures.step_ms.mean, batch as f64 / devices as f64);
            row.figures = Some(figures);
            rows.push(row);
        }
    }
    let mut study = Study {
        axes: vec!["batch".to_owned(), "devices".to_owned()],
        baseline: Some(rows[0].name.clone()),
        rows,
        ..empty(StudyKind::Scaling)
    };
    study.derive();
    study
}

/// One step, taken apart.
pub(crate) fn profile() -> Study {
    let kinds = [
        ("attention", 9.0, 18.5),
        ("feed-forward", 13.0, 26.0),
        ("LayerNorm", 1.2, 2.3),
        ("embedding", 0.3, 0.6),
        ("head and loss", 7.5, 14.2),
        ("optimizer", 2.2, 0.0),
        ("data", 0.1, 0.0),
        ("device idle", 1.9, 0.0),
        ("rest", 0.8, 0.0),
    ];
    let total: f64 = kinds.iter().map(|(_, forward, backward)| forward + backward).sum();
    let spread = |ms: f64| Summary {
        count: 10,
        mean: ms,
        std: ms / 50.0,
        min: ms * 0.98,
        p50: ms,
        p95: ms * 1.03,
        max: ms * 1.04,
    };
    let mut operations = Vec::new();
    for (name, kind, gflop, mib, ms) in [
        ("c_attn", "attention", 290.0, 400.0, 2.1),
        ("scores and values", "attention", 103.0, 300.0, 4.6),
        ("attention c_proj", "attention", 97.0, 160.0, 0.8),
        ("c_fc", "feed-forward", 386.0, 420.0, 2.6),
        ("GELU", "feed-forward", 1.2, 600.0, 1.1),
        ("feed-forward c_proj", "feed-forward", 386.0, 420.0, 2.7),
        ("ln_1 and ln_2", "LayerNorm", 0.3, 300.0, 0.6),
        ("lm_head", "head and loss", 633.0, 900.0, 4.8),
        ("softmax and loss", "head and loss", 2.0, 1600.0, 2.0),
    ] {
        for (pass, factor) in [("forward", 1.0), ("backward", 2.0)] {
            operations.push(OperationTime {
                name: name.to_owned(),
                kind: kind.to_owned(),
                pass: pass.to_owned(),
                count: 12.0,
                ms: ms * factor * 1.05,
                std_ms: ms * factor * 0.02,
                trials_ms: Vec::new(),
                flop: gflop * factor * 1e9,
                bytes: mib * factor * 1_048_576.0,
                bound_by: if gflop > 50.0 { "products" } else { "memory" }.to_owned(),
                of_ceiling: 0.3 + 0.5 * noise(operations.len() as u64),
            });
        }
    }
    for (name, kind, mib) in [("AdamW", "optimizer", 3_000.0), ("wte and wpe", "embedding", 120.0)] {
        operations.push(OperationTime {
            name: name.to_owned(),
            kind: kind.to_owned(),
            pass: if kind == "optimizer" { "update" } else { "forward" }.to_owned(),
            count: 1.0,
            ms: mib / 1500.0,
            std_ms: mib / 1e5,
            trials_ms: Vec::new(),
            flop: if kind == "optimizer" { 1.9e9 } else { 0.0 },
            bytes: mib * 1_048_576.0,
            bound_by: "memory".to_owned(),
            of_ceiling: 0.8,
        });
    }
    let slots = |i: u64, retiring: f64, memory: f64| TopDownSlots {
        cpi: 0.4 + 0.8 * memory + 0.02 * noise(i),
        retiring: retiring + 0.01 * noise(i + 1),
        bad_speculation: 0.01,
        front_end: 0.06,
        back_end: 0.93 - retiring,
        memory,
        core: 0.93 - retiring - memory,
    };
    let trials = |retiring: f64, memory: f64| (0..10).map(|i| slots(i, retiring, memory)).collect::<Vec<_>>();
    let top_down = TopDown {
        recorded: Some("made-up counts".to_owned()),
        kinds: [
            ("attention".to_owned(), trials(0.42, 0.33)),
            ("feed-forward".to_owned(), trials(0.71, 0.12)),
            ("head and loss".to_owned(), trials(0.55, 0.25)),
        ]
        .into(),
    };
    Study {
        profile: Some(Profile {
            trials: 10,
            unprofiled_step_ms: spread(total),
            profiled_step_ms: spread(total * 1.08),
            flop_per_step: 3.5e12,
            mfu: 3.5e12 / (total / 1e3) / 640e12,
            ceilings: Ceilings {
                product_flops: 640e12,
                product_side: 8192,
                bytes_per_sec: 2.9e12,
            },
            kinds: kinds
                .into_iter()
                .map(|(kind, forward_ms, backward_ms)| KindTime {
                    kind: kind.to_owned(),
                    forward_ms,
                    backward_ms,
                    share: (forward_ms + backward_ms) / total,
                    std_ms: (forward_ms + backward_ms) / 60.0,
                    trials_ms: Vec::new(),
                })
                .collect(),
            operations,
            top_down: Some(top_down),
            advice: vec![
                "Made up: `scores and values` reaches 22 % of the ceiling of products: look at the kernel first."
                    .to_owned(),
                "Made up: GELU is bound by memory: fuse it with c_fc.".to_owned(),
            ],
        }),
        ..empty(StudyKind::Profile)
    }
}

/// One study of each kind, with the name of its directory.
pub(crate) fn studies() -> Vec<(&'static str, Study)> {
    vec![
        ("made-up-sweep", sweep()),
        ("made-up-threads", threads()),
        ("made-up-fixed-work", fixed_work()),
        ("made-up-profile", profile()),
        ("made-up-scaling", scaling()),
    ]
}

/// Derived numbers that are not finite, as of a row without memory or time.
pub(crate) fn not_finite() -> Derived {
    Derived {
        speedup: Some(f64::INFINITY),
        efficiency: Some(f64::NAN),
        tokens_per_sec_per_mib: f64::INFINITY,
        jitter_ms: f64::NAN,
        jitter_relative: f64::NAN,
        p95_over_p50: f64::NAN,
        break_even_steps: None,
    }
}

/// The directories of three runs: `short` and `long` at their ends, `on-its-way` without a summary and with a torn last line.
pub(crate) fn write_runs(dir: &Path) -> io::Result<()> {
    for (name, steps, seed) in [("short", 300, 1), ("long", 2000, 2), ("on-its-way", 700, 3)] {
        let run = dir.join(name);
        fs::create_dir_all(&run)?;
        let records: Vec<StepRecord> = (0..=steps).map(|step| record(step, seed)).collect();
        let mut log = String::new();
        for record in &records {
            let _ = writeln!(log, "{}", serde_json::to_string(record)?);
        }
        if name == "on-its-way" {
            log.push_str("{\"step\": 701, \"los");
        } else {
            let metrics = serde_json::to_string_pretty(&training_metrics(name, &records))?;
            fs::write(run.join("training_metrics.json"), metrics)?;
        }
        fs::write(run.join("metrics.jsonl"), log)?;
    }
    Ok(())
}

fn record(step: u64, seed: u64) -> StepRecord {
    let curve = |step: u64| 3.2 + 7.6 * (-(step as f64) / (150.0 + 60.0 * seed as f64)).exp();
    let noisy = noise(seed * 10_000 + step);
    let step_ms = if step < 5 {
        900.0
    } else {
        100.0 + 8.0 * noisy + 10.0 * seed as f64
    };
    StepRecord {
        step,
        tokens: step * 8192,
        loss: (step > 0).then(|| curve(step) + 0.3 * (noisy - 0.5)),
        val_loss: step.is_multiple_of(100).then(|| curve(step) + 0.05),
        step_ms: (step > 0).then_some(step_ms),
        tokens_per_sec: (step > 0).then_some(8192.0 / step_ms * 1e3),
        elapsed_sec: Some(1.0 + step as f64 * 0.115),
        device_mem_bytes: step.is_multiple_of(50).then_some((11 + seed) * GIB),
        device_reserved_bytes: step.is_multiple_of(50).then_some((13 + seed) * GIB),
        device_peak_bytes: step.is_multiple_of(50).then_some((13 + seed) * GIB),
        host_mem_bytes: step.is_multiple_of(50).then_some(2 * GIB + step * (GIB >> 14)),
        ..StepRecord::default()
    }
}

fn training_metrics(name: &str, records: &[StepRecord]) -> TrainingMetrics {
    TrainingMetrics {
        schema_version: "2.0".to_owned(),
        run_id: name.to_owned(),
        timestamp_utc: "2026-11-27T12:00:00Z".to_owned(),
        git_commit: Some("0123456".to_owned()),
        command_line: "gpt2 train --model gpt2-124m (made up)".to_owned(),
        env: BTreeMap::new(),
        host: host(),
        hardware: Hardware {
            gpu_name: Some("Made-up GPU 80 GB".to_owned()),
            gpu_count_visible: Some(1),
            world_size: 1,
            cuda_version: None,
            cluster: None,
            peak_flops: None,
        },
        training_config: TrainingConfig {
            model_name: "gpt2-124m (made up)".to_owned(),
            model_size: 124_439_808,
            seq_len: 1024,
            epochs: 0.5,
            micro_batch_size_per_gpu: 8,
            grad_accum_steps: 1,
            global_batch_size: 8,
            lr: 6e-4,
            optimizer: "AdamW".to_owned(),
            precision: "bf16".to_owned(),
            dataset_name: "made up".to_owned(),
            dataset_subset_sizes: SubsetSizes {
                train: 10_000_000,
                val: 100_000,
            },
        },
        epochs: Vec::new(),
        summary: RunSummary::new(records, &[], 800_000_000, Some(989e12)),
        completion: Some(Completion {
            run_complete_file: "RUN_COMPLETE.txt".to_owned(),
            timestamp_utc: "2026-11-27T13:00:00Z".to_owned(),
        }),
        scheduler: Scheduler::default(),
        burn_version: "0.21.0".to_owned(),
        backend: "cuda".to_owned(),
        threads: 8,
        flops_per_token: 800_000_000,
        phases: Phases::default(),
        communication: None,
        losses: vec![LossPoint {
            step: 0,
            train: None,
            val: 10.9,
        }],
        floor_loss: None,
        host_peak_bytes: Some(3 * GIB),
    }
}
