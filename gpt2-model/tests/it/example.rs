//! The example for programs that use this crate.

#[path = "../../examples/finetune.rs"]
#[expect(
    dead_code,
    unreachable_pub,
    clippy::print_stdout,
    reason = "it is a program of its own"
)]
mod finetune;

use crate::support::small;
use burn_flex::{Flex, FlexDevice};
use gpt2_model::Gpt2Config;
use gpt2_model::weights::save_hf;

#[test]
fn a_model_is_finetuned_and_writes() {
    let dir = tempfile::tempdir().unwrap();
    let config = Gpt2Config {
        vocab_size: 50_257,
        ..small()
    };
    save_hf(&config.init::<Flex>(1, &FlexDevice).unwrap(), dir.path()).unwrap();
    let text = "The tide comes in, the tide goes out. ".repeat(20);
    let (losses, written) = finetune::finetune(dir.path(), &text, 30).unwrap();
    assert!(losses[29] < losses[0] - 0.01, "{losses:?}");
    assert!(written.starts_with("The tide comes in, the tide goes"), "{written}");
    assert!(written.len() > 60, "{written}");
}
