//! Fine-tunes a GPT-2 on a text, and lets it go on from its first words:
//!
//! ```sh
//! cargo run --release -p gpt2-model --features example --example finetune -- models/gpt2 book.txt
//! ```

use burn::backend::Autodiff;
use burn::module::AutodiffModule;
use burn::optim::{AdamWConfig, GradientsParams, Optimizer};
use burn::tensor::{Int, Tensor, TensorData};
use burn_flex::{Flex, FlexDevice};
use gpt2_model::Gpt2;
use gpt2_model::sampling::Sampling;
use std::error::Error;
use std::path::Path;

type Backend = Autodiff<Flex>;

const BATCH: usize = 4;
const LEARNING_RATE: f64 = 1e-4;

/// The loss of each step, and the text that the model writes after them.
pub fn finetune(weights: &Path, text: &str, steps: usize) -> Result<(Vec<f32>, String), Box<dyn Error>> {
    let tokenizer = tiktoken::get_encoding("r50k_base").ok_or("GPT-2's vocabulary is built in")?;
    let tokens: Vec<i32> = tokenizer.encode(text).into_iter().map(|token| token as i32).collect();
    let mut model = Gpt2::<Backend>::load(weights, &FlexDevice)?;
    let seq = model.config.block_size.min(128).min(tokens.len() - 1);
    // The windows of a step lie one after the other, and begin again at the end of the text.
    let window = |step: usize, shift: usize| {
        let starts = (0..BATCH).map(|row| (step * BATCH + row) * seq % (tokens.len() - seq));
        let values: Vec<i32> = starts
            .flat_map(|start| &tokens[start + shift..][..seq])
            .copied()
            .collect();
        Tensor::<Backend, 2, Int>::from_data(TensorData::new(values, [BATCH, seq]), &FlexDevice)
    };

    let mut optimizer = AdamWConfig::new().init();
    let mut losses = Vec::new();
    for step in 0..steps {
        let loss = model.loss(window(step, 0), window(step, 1));
        losses.push(loss.clone().into_scalar());
        let gradients = GradientsParams::from_grads(loss.backward(), &model);
        model = optimizer.step(LEARNING_RATE, model, gradients);
    }

    let prompt = &tokens[..8.min(tokens.len())];
    let written: Vec<i32> = model
        .valid()
        .generate(prompt, Sampling::default(), 1)
        .take(32)
        .collect::<Result<_, _>>()?;
    let all: Vec<u32> = prompt.iter().chain(&written).map(|&token| token as u32).collect();
    Ok((losses, String::from_utf8_lossy(&tokenizer.decode(&all)).into_owned()))
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [weights, text] = arguments.as_slice() else {
        return Err("usage: finetune MODEL TEXT".into());
    };
    let (losses, written) = finetune(Path::new(weights), &std::fs::read_to_string(text)?, 20)?;
    println!("loss {:.4} → {:.4}\n{written}", losses[0], losses[losses.len() - 1]);
    Ok(())
}
