//! Starts that fail, runs that end badly and names that are nearly right: what is said, and that following the hint
//! works.

use crate::support::{follow, gpt2, play, prepared, train, write_tiny};
use gpt2_train::run_dir::RunDir;
use std::fs;
use std::path::Path;
use tempfile::{TempDir, tempdir};

const TRAIN: [&str; 4] = ["--data", "data", "--run", "a"];

/// A directory with prepared data and a finished run `a` of two steps.
fn with_run() -> TempDir {
    let dir = with_data();
    train(dir.path(), &TRAIN).succeeded();
    dir
}

fn with_data() -> TempDir {
    let dir = tempdir().unwrap();
    prepared(dir.path());
    dir
}

#[test]
fn a_failed_start_leaves_nothing_in_the_way() {
    let dir = with_run();
    let weights = dir.path().join("a/checkpoints/step-00000002/model.safetensors");
    let sound = fs::read(&weights).unwrap();
    fs::write(&weights, &sound[..sound.len() / 2]).unwrap();
    let command = ["--data", "data", "--init", "a/checkpoints/step-00000002", "--run", "b"];
    train(dir.path(), &command).failed("model.safetensors");
    assert!(!dir.path().join("b").exists());
    fs::write(&weights, sound).unwrap();
    train(dir.path(), &command).succeeded();

    let command = [&TRAIN[..3], &["c", "--grad-accum", "1000"]].concat();
    train(dir.path(), &command).refused("`grad-accum` is 1000, expected a step of at most the ");
    assert!(!dir.path().join("c").exists());
}

#[test]
fn a_run_whose_minutes_are_over_goes_on_with_more() {
    let dir = with_data();
    let command = ["--data", "data", "--run", "a", "--max-minutes", "0.000001"];
    let said = train(dir.path(), &command).succeeded();
    assert!(
        said.contains("gpt2 train --run a --resume --max-minutes 0.000002\n"),
        "{said}"
    );
}

#[test]
fn only_a_directory_is_watched() {
    let dir = tempdir().unwrap();
    gpt2(dir.path(), &["report", "--watch", "none"]).refused("none is no directory: expected that of a run");
}

#[test]
fn a_run_that_was_killed_before_its_first_step_is_begun_again() {
    let dir = with_run();
    fs::create_dir(dir.path().join("b")).unwrap();
    fs::copy(dir.path().join("a/plan.toml"), dir.path().join("b/plan.toml")).unwrap();
    let outcome = gpt2(dir.path(), &["train", "--run", "b", "--resume"]);
    outcome.refused("no whole checkpoint in b/checkpoints");
    assert_eq!(outcome.hint(), "gpt2 train --config b/plan.toml --run b");
    follow(dir.path(), outcome.hint()).succeeded();
}

#[test]
fn a_run_that_is_there_may_go_on_or_be_repeated_elsewhere() {
    let dir = with_run();
    let outcome = gpt2(dir.path(), &["train", "--config", "a/plan.toml"]);
    outcome.refused("run directory a already holds a run; resume it, or choose another");
    assert_eq!(
        outcome.hint(),
        "`gpt2 train --run a --resume` goes on with it, `gpt2 train --config a/plan.toml --run a-2` starts another"
    );
    for line in outcome.hint().split('`').skip(1).step_by(2) {
        follow(dir.path(), line).succeeded();
    }
    assert!(dir.path().join("a-2/RUN_COMPLETE.txt").exists());
}

#[test]
fn a_loss_that_is_not_finite_names_the_run_to_try() {
    let dir = with_data();
    let outcome = train(dir.path(), &[&TRAIN[..], &["--lr", "1e30"]].concat());
    outcome.failed("the loss is NaN at step 2 ");
    assert_eq!(
        outcome.hint(),
        "gpt2 train --config a/plan.toml --run a-2 --lr 1e29 --min-lr 1e28"
    );
    // It begins: the rate is still far too high.
    follow(dir.path(), outcome.hint()).failed("the loss is NaN at step 2 ");
}

#[test]
fn weights_that_are_not_finite_are_not_blamed_on_the_learning_rate() {
    let dir = with_run();
    let checkpoint = dir.path().join("a/checkpoints/step-00000002");
    let weights = checkpoint.join("model.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    bytes[header..]
        .chunks_exact_mut(4)
        .for_each(|value| value.copy_from_slice(&f32::NAN.to_le_bytes()));
    fs::write(&weights, bytes).unwrap();
    let command = ["--data", "data", "--init", "a/checkpoints/step-00000002", "--run", "b"];
    let outcome = train(dir.path(), &command);
    outcome.failed("no update came before it to the weights in a/checkpoints/step-00000002");
    // The run that made them, more slowly.
    assert_eq!(
        outcome.hint(),
        "gpt2 train --config a/plan.toml --run a-2 --lr 5e-4 --min-lr 5e-5"
    );
    assert!(!dir.path().join("b").exists());
    follow(dir.path(), outcome.hint()).succeeded();

    // From the checkpoint before, if there is one.
    let earlier = dir.path().join("a/checkpoints/step-00000001");
    fs::rename(dir.path().join("a-2/checkpoints/step-00000002"), &earlier).unwrap();
    let outcome = train(dir.path(), &command);
    assert_eq!(
        outcome.hint(),
        "gpt2 train --config tiny.toml --data data --run b --init a/checkpoints/step-00000001"
    );

    // Weights that came from elsewhere.
    fs::rename(&checkpoint, dir.path().join("weights")).unwrap();
    let outcome = train(dir.path(), &["--data", "data", "--init", "weights", "--run", "b"]);
    assert_eq!(outcome.hint(), "the weights are damaged: fetch or export weights again");
}

#[test]
fn what_resuming_comes_to_is_said() {
    let dir = with_run();
    let resume = |flags: &str| {
        let flags = flags.split_whitespace();
        gpt2(
            dir.path(),
            &["train", "--run", "a", "--resume"]
                .into_iter()
                .chain(flags)
                .collect::<Vec<_>>(),
        )
    };
    let finished = resume("");
    assert!(
        finished
            .stderr
            .contains("the run is finished: it has taken all 2 steps that `steps` allows\n"),
        "{finished:#?}"
    );
    let command = "gpt2 train --config a/plan.toml --init a/checkpoints/step-00000002 --run a-2";
    assert_eq!(
        finished.hint(),
        format!("a new run from here has a schedule of its own: {command} --steps 2")
    );
    follow(dir.path(), &format!("{command} --steps 2")).succeeded();

    let refused = resume("--lr 1e-5");
    refused.refused("a/plan.toml: cannot resume with other settings: `lr` was 0.005, now 0.00001;");
    assert!(!refused.stderr.contains("min-lr` was"), "{refused:#?}");
    let hint = refused.hint().to_owned();
    assert_eq!(
        hint,
        format!("{command} --lr 0.00001 --min-lr 1e-6").replace("a-2", "a-3")
    );
    follow(dir.path(), &hint).succeeded();

    let longer = resume("--steps 4");
    assert_eq!(
        longer.warnings(),
        ["steps 3 to 4 have the lowest learning rate, 0.0005: the schedule of the run ends before them"]
    );
    longer.succeeded();

    let fewer = resume("--max-tokens 8");
    assert!(
        fewer
            .stderr
            .contains("the run is finished: it has taken 4 steps already, and `max-tokens` allows 1\n"),
        "{fewer:#?}"
    );
    assert!(
        fewer.hint().ends_with(" --run a-4 --max-tokens 8 --decay-steps 1"),
        "{fewer:#?}"
    );

    // A new run that is longer than this one, not one that ends where its plan says.
    let longer = resume("--max-tokens 320");
    assert!(
        longer
            .hint()
            .ends_with(" --run a-4 --steps 10 --max-tokens 320 --decay-steps 10"),
        "{longer:#?}"
    );
    follow(dir.path(), longer.hint().rsplit_once(": ").unwrap().1).succeeded();

    // A preset's name stands for its sizes.
    let other = resume("--model d6");
    assert!(
        other
            .hint()
            .ends_with(" --model d6 --n-layer 6 --n-head 6 --n-embd 384 --block-size 1024"),
        "{other:#?}"
    );
}

#[test]
fn what_is_hardly_meant_is_warned_of() {
    let dir = with_data();
    let outcome = train(dir.path(), &[&TRAIN[..], &["--steps", "5000", "--dry-run"]].concat());
    let warnings = outcome.warnings();
    assert_eq!(warnings.len(), 1, "{outcome:#?}");
    assert!(warnings[0].starts_with("the run repeats its data "), "{outcome:#?}");
    outcome.succeeded();

    let flags = ["--steps", "8", "--lr", "10", "--warmup", "0", "--grad-clip", "0"];
    let outcome = train(dir.path(), &[&TRAIN[..], &flags].concat());
    let warnings = outcome.warnings();
    assert_eq!(warnings.len(), 1, "{outcome:#?}");
    assert!(
        warnings[0].starts_with("the run diverged: its last loss is "),
        "{outcome:#?}"
    );
    assert_eq!(
        outcome.hint(),
        "gpt2 train --config a/plan.toml --run a-2 --lr 1e0 --min-lr 1e-1"
    );
    follow(dir.path(), outcome.hint()).succeeded();
}

#[test]
fn a_text_that_changed_is_prepared_again() {
    let dir = tempdir().unwrap();
    write_tiny(dir.path());
    fs::write(dir.path().join("play.txt"), play()).unwrap();
    let train = ["train", "--config", "tiny.toml", "--data", "play.txt"];
    gpt2(dir.path(), &train).succeeded();
    fs::write(dir.path().join("play.txt"), play() + "Exeunt.\n").unwrap();
    let outcome = gpt2(dir.path(), &train);
    assert_eq!(outcome.code, Some(1));
    let error = "error: data/play was begun with other inputs (play.txt has other content): ";
    assert!(outcome.stderr.contains(error), "{outcome:#?}");
    assert_eq!(
        outcome.hint(),
        "gpt2 data prepare --input play.txt --out data/play-2 --val-fraction 0.1 && \
         gpt2 train --config tiny.toml --data data/play-2"
    );
    follow(dir.path(), outcome.hint()).succeeded();
}

#[test]
fn names_that_are_nearly_right() {
    let dir = with_run();
    let outcome = gpt2(dir.path(), &["train", "--model", "gpt2-small", "--dry-run"]);
    outcome.refused("unknown model preset `gpt2-small`");
    assert_eq!(outcome.hint(), "gpt2 train --dry-run --model gpt2");
    follow(dir.path(), outcome.hint()).succeeded();

    let outcome = gpt2(dir.path(), &["train", "--max-iters", "100"]);
    outcome.refused("unexpected argument '--max-iters' found");
    assert_eq!(outcome.hint(), "a similar argument exists: '--steps'");

    let sample = ["sample", "--prompt", "Once upon", "--max-tokens", "1", "--run"];
    let outcome = gpt2(dir.path(), &[&sample[..], &["."]].concat());
    outcome.refused(". holds no run: plan.toml is missing");
    assert_eq!(
        outcome.hint(),
        "gpt2 sample --prompt 'Once upon' --max-tokens 1 --run ./a"
    );
    follow(dir.path(), outcome.hint()).succeeded();

    // A run, or its checkpoints, in the place of weights.
    for init in ["a", "a/checkpoints"] {
        let outcome = gpt2(dir.path(), &["sample", "--max-tokens", "1", "--init", init]);
        assert_eq!(outcome.code, Some(1), "{outcome:#?}");
        assert_eq!(
            outcome.hint(),
            "gpt2 sample --max-tokens 1 --init a/checkpoints/step-00000002"
        );
        follow(dir.path(), outcome.hint()).succeeded();
    }

    for command in ["train", "sample"] {
        let outcome = gpt2(dir.path(), &[command, "--init", "openai-community/gpt2"]);
        assert_eq!(outcome.code, Some(1), "{outcome:#?}");
        assert!(
            outcome.stderr.contains(
                "error: openai-community/gpt2: no such file or directory; it looks like a model on the Hugging Face hub"
            ),
            "{outcome:#?}"
        );
    }
}

#[test]
fn a_run_without_a_checkpoint_yet_is_waited_for() {
    let dir = with_run();
    let held = |run: &Path| {
        let directory = RunDir::create(run).unwrap();
        fs::copy(dir.path().join("a/plan.toml"), directory.plan()).unwrap();
        directory
    };
    let running = held(&dir.path().join("b"));
    let outcome = gpt2(dir.path(), &["sample", "--run", "b"]);
    outcome.refused("no whole checkpoint in b/checkpoints");
    assert_eq!(
        outcome.hint(),
        "the run is being trained and saves its first checkpoint after step 240; try again then"
    );
    let outcome = train(dir.path(), &["--data", "data", "--run", "b"]);
    outcome.refused("run directory b is in use by process ");
    assert_eq!(outcome.hint(), "gpt2 train --config tiny.toml --data data --run b-2");
    let outcome = gpt2(dir.path(), &["train", "--run", "b", "--resume"]);
    outcome.refused("run directory b is in use by process ");
    assert_eq!(
        outcome.hint(),
        "`gpt2 train --config b/plan.toml --run b-2` starts another such run"
    );
    follow(dir.path(), outcome.hint().split('`').nth(1).unwrap()).succeeded();
    drop(running);

    // It cannot be gone on with, but another one can.
    let outcome = gpt2(dir.path(), &["train", "--run", ".", "--resume"]);
    outcome.refused(". holds no run: plan.toml is missing");
    assert_eq!(outcome.hint(), "gpt2 train --resume --run ./b-2");
    follow(dir.path(), outcome.hint()).succeeded();
}
