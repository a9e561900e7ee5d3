//! Every file in `configs/` parses, resolves and says what it is meant to say.

use gpt2_model::capabilities::BackendKind;
use gpt2_train::TrainError;
use gpt2_train::config::RunConfig;
use gpt2_train::plan::{DataSummary, Environment, RunPlan};
use std::path::{Path, PathBuf};

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs")
}

/// A machine with a GPU and a corpus of `train_tokens`.
fn environment(train_tokens: u64) -> Environment {
    Environment {
        data: DataSummary {
            name: "test".into(),
            train_tokens,
            val_tokens: 32_768,
            floor: None,
        },
        default_run: "runs/test".into(),
        auto_backend: BackendKind::Cuda,
        cores: 2,
        device: 0,
        memory_bytes: None,
        memory_is_of_host: true,
        init_model: None,
    }
}

fn plan(name: &str, train_tokens: u64) -> Result<RunPlan, TrainError> {
    let config = RunConfig::from_toml_file(&directory().join(name))?;
    RunPlan::resolve(&config, &environment(train_tokens))
}

#[test]
fn every_shipped_file_resolves() {
    let mut files: Vec<_> = std::fs::read_dir(directory())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    files.sort();
    let expected = [
        "demo.toml",
        "gpt2-124m-cpu.toml",
        "gpt2-124m-fineweb.toml",
        "tinyshakespeare-cpu.toml",
        "tinyshakespeare-d6.toml",
    ];
    assert_eq!(files, expected);
    for file in expected {
        plan(file, 1_000_000).unwrap();
    }
}

#[test]
fn the_demo_file_is_what_no_file_at_all_means() {
    let environment = environment(1_000_000);
    let config = RunConfig::from_toml_file(&directory().join("demo.toml")).unwrap();
    let from_file = RunPlan::resolve(&config, &environment).unwrap();
    let default = RunPlan::resolve(
        &RunConfig {
            run: config.run,
            ..RunConfig::default()
        },
        &environment,
    )
    .unwrap();
    assert_eq!(from_file, default);
}

#[test]
fn the_124m_recipe_is_the_published_one() {
    let plan = plan("gpt2-124m-fineweb.toml", 9_900_000_000).unwrap();
    assert_eq!(plan.tokens_per_step(), 524_288);
    assert_eq!(
        (plan.batch.micro_batch * plan.batch.grad_accum, plan.batch.seq),
        (512, 1024)
    );
    assert_eq!(
        (
            plan.schedule.lr,
            plan.schedule.min_lr,
            plan.schedule.warmup,
            plan.last_step()
        ),
        (6e-4, 0.0, 700, 18_865)
    );
    assert_eq!(
        (
            plan.optimizer.weight_decay,
            plan.optimizer.beta1,
            plan.optimizer.beta2,
            plan.grad_clip
        ),
        (0.1, 0.9, 0.95, 1.0)
    );
}

#[test]
fn tinyshakespeare_d6_is_two_hundred_steps() {
    let plan = plan("tinyshakespeare-d6.toml", 305_260).unwrap();
    assert_eq!(
        (plan.preset.as_str(), plan.model.n_layer, plan.last_step()),
        ("d6", 6, 200)
    );
}

#[test]
fn the_cpu_work_of_124m_is_41_steps_of_256_tokens() {
    let plan = plan("gpt2-124m-cpu.toml", 305_260).unwrap();
    assert_eq!((plan.batch.micro_batch, plan.batch.seq, plan.last_step()), (4, 64, 41));
    assert_eq!((plan.intervals.eval_every, plan.intervals.sample_every), (10, 20));
}
