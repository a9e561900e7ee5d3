//! Text that the model writes while it is trained.

use crate::error::TrainError;
use crate::plan::RunPlan;
use gpt2_data::{END_OF_TEXT, Tokenizer};
use gpt2_model::Inference;
use gpt2_model::sampling::Sampling;

/// The text that `model` writes after the plan's prompt, up to the end of the document.
///
/// # Errors
/// [`TrainError::Model`] if the model's logits are not finite.
pub fn sample(model: &dyn Inference, plan: &RunPlan, step: u64) -> Result<String, TrainError> {
    let tokenizer = Tokenizer::gpt2();
    let mut prompt: Vec<i32> = tokenizer
        .encode(&plan.intervals.sample_prompt)
        .into_iter()
        .map(i32::from)
        .collect();
    if prompt.is_empty() {
        prompt.push(i32::from(END_OF_TEXT));
    }
    let written = model
        .generate(&prompt, Sampling::default(), plan.seed ^ step)
        .take(plan.intervals.sample_tokens)
        .map(|token| token.map(|token| token as u16))
        .take_while(|token| !matches!(token, Ok(END_OF_TEXT)))
        .collect::<Result<Vec<u16>, _>>()?;
    Ok(format!(
        "{}{}",
        plan.intervals.sample_prompt,
        tokenizer.decode(&written)
    ))
}
