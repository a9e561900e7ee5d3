//! What a run may do but hardly anyone wants: data repeated without end, steps that were meant in tokens, a loss that
//! grew.

use super::{DataSummary, RunPlan};
use crate::step_log::StepRecord;
use gpt2_base::units::grouped;
use std::fmt;

/// Repetitions of the data past which a model only learns it by heart. Past some 4 each is worth less than new data,
/// past 40 nothing (Muennighoff et al. 2023); small texts are commonly repeated up to 100 times.
const EPOCHS: f64 = 100.0;

/// Tokens of a step past which they must have been meant as sequences: GPT-3's largest model had 3.2 million (Brown et
/// al. 2020, table 2.1).
const TOKENS_PER_STEP: u64 = 1 << 24;

/// A remark on a run that is allowed.
#[derive(Debug, Clone, PartialEq)]
pub enum Warning {
    /// The data is repeated many times.
    Epochs {
        /// How often.
        epochs: f64,
        /// Tokens of the data.
        data: u64,
        /// Tokens of the run.
        tokens: u64,
    },
    /// A step holds very many tokens.
    GlobalBatch {
        /// Sequences of a step.
        sequences: u64,
        /// Tokens of a sequence.
        seq: u64,
    },
    /// There is one rank, and with it nothing to shard.
    OneShard,
    /// The model ended worse than one that knows nothing.
    Diverged {
        /// The last training loss, in nats.
        loss: f64,
        /// The loss when all tokens are equally probable.
        untrained: f64,
    },
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Epochs { epochs, data, tokens } => write!(
                f,
                "the run repeats its data {} times ({} tokens of {}): it will learn it by heart; lower `steps`, or take more \
                 data",
                grouped(epochs.round() as u64),
                grouped(*tokens),
                grouped(*data)
            ),
            Self::GlobalBatch { sequences, seq } => {
                write!(
                    f,
                    "a step has {} sequences of {seq} tokens, which is {} tokens",
                    grouped(*sequences),
                    grouped(sequences.saturating_mul(*seq))
                )?;
                let meant = sequences / seq;
                if meant > 0 {
                    write!(
                        f,
                        "; `global-batch` counts sequences: {meant} have {} tokens",
                        grouped(meant * seq)
                    )?;
                }
                Ok(())
            }
            Self::OneShard => f.write_str("`shard-optimizer` changes nothing on one device"),
            Self::Diverged { loss, untrained } => write!(
                f,
                "the run diverged: its last loss is {loss:.2}, where a model that knows nothing has {untrained:.2}"
            ),
        }
    }
}

impl RunPlan {
    /// What is remarkable about the plan on this data.
    pub fn warnings(&self, data: &DataSummary) -> Vec<Warning> {
        let mut warnings = Vec::new();
        let tokens = self.last_step().saturating_mul(self.tokens_per_step());
        let epochs = tokens as f64 / data.train_tokens.max(1) as f64;
        if epochs > EPOCHS {
            warnings.push(Warning::Epochs {
                epochs,
                data: data.train_tokens,
                tokens,
            });
        }
        if self.tokens_per_step() > TOKENS_PER_STEP {
            warnings.push(Warning::GlobalBatch {
                sequences: self.global_batch() as u64,
                seq: self.batch.seq as u64,
            });
        }
        if self.machine.shard_optimizer && self.machine.ranks == 1 {
            warnings.push(Warning::OneShard);
        }
        warnings
    }
}

/// Whether these steps, in order, end with a loss above that of a model over `vocab_size` tokens that knows nothing.
///
/// A single batch of a sound run stays below: its first loss is that of a model which knows nothing.
pub fn divergence(steps: &[StepRecord], vocab_size: usize) -> Option<Warning> {
    /// An untrained model is slightly worse than all tokens being equally probable.
    const MARGIN: f64 = 1.1;
    let untrained = (vocab_size as f64).ln();
    let loss = steps.last()?.loss?;
    (loss > MARGIN * untrained).then_some(Warning::Diverged { loss, untrained })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Devices, RunConfig};
    use crate::plan::Environment;

    fn warnings(config: &RunConfig, train_tokens: u64) -> Vec<String> {
        let mut environment = Environment::sample();
        environment.data.train_tokens = train_tokens;
        let plan = RunPlan::resolve(config, &environment).unwrap();
        plan.warnings(&environment.data)
            .iter()
            .map(Warning::to_string)
            .collect()
    }

    #[test]
    fn a_usual_run_has_none() {
        assert_eq!(warnings(&RunConfig::default(), 305_260), [""; 0]);
    }

    #[test]
    fn epochs_without_end() {
        let config = RunConfig {
            steps: Some(100_000),
            ..RunConfig::default()
        };
        let warnings = warnings(&config, 305_260);
        assert_eq!(warnings.len(), 1);
        assert!(
            warnings[0].starts_with("the run repeats its data 168 times (51,200,000 tokens of 305,260): "),
            "{warnings:?}"
        );
    }

    #[test]
    fn a_step_that_was_meant_in_tokens() {
        let config = RunConfig {
            global_batch: Some(524_288),
            batch: Some(4.into()),
            steps: Some(10),
            ..RunConfig::default()
        };
        assert_eq!(
            warnings(&config, 10_000_000_000),
            [
                "a step has 524,288 sequences of 128 tokens, which is 67,108,864 tokens; `global-batch` counts sequences: 4096 \
              have 524,288 tokens"
            ]
        );
    }

    #[test]
    fn one_device_has_nothing_to_shard() {
        let config = |devices| RunConfig {
            shard_optimizer: Some(true),
            devices: Some(Devices::Count(devices)),
            ..RunConfig::default()
        };
        assert_eq!(warnings(&config(2), 305_260), [""; 0]);
        assert_eq!(
            warnings(&config(1), 305_260),
            ["`shard-optimizer` changes nothing on one device"]
        );
    }

    #[test]
    fn a_loss_that_grew() {
        let ends_with = |loss| {
            let step = StepRecord {
                step: 9,
                loss: Some(loss),
                ..StepRecord::default()
            };
            divergence(&[step], 50_257).map(|warning| warning.to_string())
        };
        assert_eq!(ends_with(10.9), None);
        assert_eq!(
            ends_with(1096.2).as_deref(),
            Some("the run diverged: its last loss is 1096.20, where a model that knows nothing has 10.82")
        );
        assert_eq!(divergence(&[], 50_257), None);
    }
}
