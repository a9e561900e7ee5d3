//! A plan in words and figures, for `--dry-run` and the head of `plan.toml`.

use super::{DataSummary, RunPlan};
use crate::config::ScheduleKind;
use gpt2_base::units::{bytes, flops, grouped};
use gpt2_model::cost;
use std::fmt::Write;

impl RunPlan {
    /// What the run comes to: size, data, work, predicted memory, schedule and limits, one a line.
    pub fn describe(&self, data: &DataSummary) -> String {
        let mut text = String::new();
        for (label, line) in [
            ("model", self.model_line()),
            ("data", self.data_line(data)),
            ("batch", self.batch_line()),
            ("length", self.length_line(data)),
            ("compute", self.compute_line()),
            ("memory", self.memory_line()),
            ("schedule", self.schedule_line()),
            ("optimizer", self.optimizer_line()),
            ("every", self.intervals_line()),
            ("on", self.machine_line()),
            ("run", self.run.display().to_string()),
        ] {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{label:<10} {line}");
        }
        text
    }

    fn machine_line(&self) -> String {
        let devices = match self.machine.ranks {
            1 => format!("device {}", self.machine.device),
            ranks if self.machine.shard_optimizer => format!("× {ranks} with a sharded optimizer"),
            ranks => format!("× {ranks}"),
        };
        let machine = format!(
            "{} {devices}, {}, recomputing {}, {} threads",
            self.machine.backend, self.machine.precision, self.machine.recompute, self.machine.threads
        );
        match self.without_kernels() {
            Some(how) => format!("{machine}; {how}"),
            None => machine,
        }
    }

    /// How the step is computed where our own kernels do not take it: none of them steps aside in silence.
    pub fn without_kernels(&self) -> Option<String> {
        self.capabilities().describe_references()
    }

    fn model_line(&self) -> String {
        let model = &self.model;
        format!(
            "{}: {} parameters, {} layers, {} heads, {} wide, block {}, vocabulary {}, dropout {}, {}",
            self.preset,
            grouped(cost::parameters(model)),
            model.n_layer,
            model.n_head,
            model.n_embd,
            model.block_size,
            grouped(model.vocab_size as u64),
            model.dropout,
            self.init.as_ref().map_or_else(
                || format!("seed {}", self.seed),
                |init| format!("from {}", init.display())
            ),
        )
    }

    fn data_line(&self, data: &DataSummary) -> String {
        let place = self
            .data
            .as_ref()
            .map_or_else(|| "made by this program".to_owned(), |dir| dir.display().to_string());
        let floor = data
            .floor
            .map(|nats| format!(", floor {nats:.4} nats a token"))
            .unwrap_or_default();
        format!(
            "{} ({place}): {} training tokens, {} validation tokens{floor}",
            data.name,
            grouped(data.train_tokens),
            grouped(data.val_tokens)
        )
    }

    fn batch_line(&self) -> String {
        format!(
            "{} sequences × {} tokens × {} micro-step{}{} = {} tokens a step",
            self.batch.micro_batch,
            self.batch.seq,
            self.batch.grad_accum,
            if self.batch.grad_accum == 1 { "" } else { "s" },
            match self.machine.ranks {
                1 => String::new(),
                ranks => format!(" × {ranks} ranks"),
            },
            grouped(self.tokens_per_step())
        )
    }

    fn length_line(&self, data: &DataSummary) -> String {
        let tokens = self.last_step().saturating_mul(self.tokens_per_step());
        let epochs = tokens as f64 / data.train_tokens as f64;
        let minutes = self
            .limits
            .max_minutes
            .map(|minutes| format!(", at most {minutes} minutes"))
            .unwrap_or_default();
        format!(
            "{} steps, {} tokens, {epochs:.2} epochs{minutes}",
            grouped(self.last_step()),
            grouped(tokens)
        )
    }

    fn compute_line(&self) -> String {
        let each = cost::flops_per_token(&self.model, self.batch.seq) as f64;
        let all = each * self.tokens_per_step() as f64 * self.last_step() as f64;
        format!(
            "{} a token, {} in all (6·N + 12·n_layer·n_embd·T)",
            flops(each),
            flops(all)
        )
    }

    fn memory_line(&self) -> String {
        let memory = self.memory();
        format!(
            "{} predicted: weights {}, gradients {}, optimizer {}, activations {}",
            bytes(memory.total()),
            bytes(memory.weights),
            bytes(memory.gradients),
            bytes(memory.optimizer),
            bytes(memory.activations)
        )
    }

    fn schedule_line(&self) -> String {
        let start = format!(
            "{} steps of warm-up to {}, then",
            self.schedule.warmup,
            rate(self.schedule.lr)
        );
        match self.schedule.kind {
            ScheduleKind::Constant => format!("{start} constant"),
            ScheduleKind::Cosine | ScheduleKind::Linear => {
                format!(
                    "{start} {} to {} at step {}",
                    self.schedule.kind,
                    rate(self.schedule.min_lr),
                    self.schedule.decay_steps
                )
            }
            ScheduleKind::Wsd => format!(
                "{start} stable, then in the last {} of {} steps down to {}",
                self.schedule.decay_fraction,
                self.schedule.decay_steps,
                rate(self.schedule.min_lr)
            ),
        }
    }

    fn optimizer_line(&self) -> String {
        let clip = if self.grad_clip > 0.0 {
            format!("norm at most {}", self.grad_clip)
        } else {
            "no clipping".into()
        };
        format!(
            "AdamW, betas {} and {}, eps {:e}, weight decay {}, gradient {clip}",
            self.optimizer.beta1, self.optimizer.beta2, self.optimizer.eps, self.optimizer.weight_decay
        )
    }

    fn intervals_line(&self) -> String {
        let each = |what: &str, steps: u64| {
            if steps == 0 {
                format!("no {what}")
            } else {
                format!("{steps} steps {what}")
            }
        };
        let tasks: Vec<&str> = self.tasks.files().map(|file| file.name()).collect();
        let tasks = (!tasks.is_empty()).then(|| match self.tasks.every {
            0 => format!("{} at the end", tasks.join(" and ")),
            every => each(&tasks.join(" and "), every),
        });
        let others = [
            each("samples", self.intervals.sample_every),
            each("checkpoints", self.intervals.checkpoint_every),
        ];
        let all = [each("evaluation", self.intervals.eval_every)]
            .into_iter()
            .chain(tasks)
            .chain(others);
        all.collect::<Vec<_>>().join(", ")
    }
}

/// A learning rate to four digits: a tenth of 3e-3 is 3e-4 and a rounding error.
fn rate(rate: f64) -> String {
    if rate == 0.0 {
        return "0".to_owned();
    }
    let rounded = format!("{rate:.3e}");
    rounded.parse::<f64>().map_or(rounded, |rate| format!("{rate:e}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{BackendChoice, RunConfig};
    use crate::plan::Environment;

    #[test]
    fn the_demo_in_words() {
        let environment = Environment::sample();
        let plan = RunPlan::resolve(&RunConfig::default(), &environment).unwrap();
        let text = plan.describe(&environment.data);
        for line in [
            "model      d3: 5,184,960 parameters, 3 layers, 3 heads, 96 wide, block 256, vocabulary 50,257, dropout 0, seed 1337",
            "data       stories (made by this program): 1,000,000 training tokens, 50,000 validation tokens, floor 1.2500 nats a token",
            "batch      4 sequences × 128 tokens × 1 micro-step = 512 tokens a step",
            "length     480 steps, 245,760 tokens, 0.25 epochs",
            "compute    31.6 MFLOP a token, 7.8 TFLOP in all (6·N + 12·n_layer·n_embd·T)",
            "schedule   96 steps of warm-up to 5e-3, then cosine to 5e-4 at step 480",
            "every      96 steps evaluation, 96 steps samples, 240 steps checkpoints",
            "on         ndarray device 0, f32, recomputing none, 2 threads",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\nis not in\n{text}");
        }
    }

    #[test]
    fn a_shape_without_kernels_is_told() {
        let line = |backend, n_head, dropout| {
            let config = RunConfig {
                backend: Some(backend),
                model: Some("d4".to_owned()),
                n_head: Some(n_head),
                dropout: Some(dropout),
                ..RunConfig::default()
            };
            RunPlan::resolve(&config, &Environment::sample())
                .unwrap()
                .machine_line()
        };
        // Heads of 4 channels.
        assert!(line(BackendChoice::Cuda, 32, 0.0).contains("; attention in plain tensors, slower and in TF32: "));
        assert!(!line(BackendChoice::Cuda, 4, 0.0).contains("plain"));
        assert!(!line(BackendChoice::Ndarray, 4, 0.0).contains("plain"));
        assert!(line(BackendChoice::Ndarray, 4, 0.1).contains("no dropout"));
    }

    #[test]
    fn each_schedule_has_its_sentence() {
        let sentence = |kind| {
            let config = RunConfig {
                schedule: Some(kind),
                ..RunConfig::default()
            };
            RunPlan::resolve(&config, &Environment::sample())
                .unwrap()
                .schedule_line()
        };
        assert!(sentence(ScheduleKind::Linear).ends_with("then linear to 5e-4 at step 480"));
        assert!(sentence(ScheduleKind::Constant).ends_with("then constant"));
        assert!(sentence(ScheduleKind::Wsd).ends_with("in the last 0.2 of 480 steps down to 5e-4"));
    }
}
