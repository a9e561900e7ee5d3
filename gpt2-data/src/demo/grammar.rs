//! Draws stories from a grammar, each with its exact probability, and recognises them. The notation is `syntax.rs`, the
//! stories themselves are `stories.grammar`, and writing a corpus is `demo.rs`.
//!
//! A story is made by a sequence of weighted choices, so its probability is their product. It is also the probability of
//! the *text*, and its logarithm what a perfect model would lose on it, only if no other choices make the same text. The
//! tests hold that: [`StoryGrammar::recognise`] searches for every derivation of a text, and finds one.

use super::syntax::{self, Choices, Part, Syntax};
use crate::error::DataError;
use crate::rng::SplitMix64;

/// The grammar of the demo's stories.
pub(super) const STORIES: &str = include_str!("stories.grammar");

/// A weighted grammar of short stories.
#[derive(Debug)]
pub struct StoryGrammar {
    syntax: Syntax,
}

/// A story and what it costs to predict.
#[derive(Debug, Clone, PartialEq)]
pub struct Story {
    /// The whole story, on one line.
    pub text: String,
    /// −ln of the probability with which the grammar draws this story: the total loss, in nats, of a model that knows the
    /// grammar. It covers the story's end too, because only whole stories are drawn.
    pub nats: f64,
}

/// The entry that each role was cast with.
type Cast = Vec<Option<usize>>;

impl StoryGrammar {
    /// The grammar of the demo corpus.
    ///
    /// # Errors
    /// [`DataError::Grammar`] if the text that is built in were damaged.
    pub fn built_in() -> Result<Self, DataError> {
        Self::parse(STORIES)
    }

    /// Reads a grammar in the notation of `stories.grammar`.
    ///
    /// # Errors
    /// [`DataError::Grammar`] names the line that is at fault.
    pub fn parse(text: &str) -> Result<Self, DataError> {
        Ok(Self {
            syntax: syntax::parse(text)?,
        })
    }

    /// Draws a story. The text depends on nothing but the state of `rng`.
    pub fn sample(&self, rng: &mut SplitMix64) -> Story {
        self.generate(|weights, total| {
            let mut ticket = rng.below(total);
            for (index, &weight) in weights.iter().enumerate() {
                match ticket.checked_sub(weight) {
                    Some(rest) => ticket = rest,
                    None => return index,
                }
            }
            unreachable!("a ticket below {total} falls to one of {weights:?}")
        })
    }

    /// −ln of the probability of `text`, or `None` if it is no story of this grammar.
    pub fn recognise(&self, text: &str) -> Option<f64> {
        self.derivations(text).into_iter().reduce(f64::min)
    }

    /// The mean of [`Story::nats`] over all stories, computed from the grammar alone: the entropy of a story.
    pub fn expected_nats(&self) -> f64 {
        // A rule refers only to later ones, so from the last to the first each entropy is known when it is needed.
        let mut entropy = vec![0.0; self.syntax.rules.len()];
        for (index, rule) in self.syntax.rules.iter().enumerate().rev() {
            let inside = rule.weights.iter().zip(&rule.items).map(|(&weight, parts)| {
                let nats: f64 = parts.iter().map(|part| self.part_entropy(part, &entropy)).sum();
                weight as f64 / rule.total as f64 * nats
            });
            entropy[index] = inside.sum::<f64>() + choice_entropy(rule);
        }
        entropy[0]
    }

    fn part_entropy(&self, part: &Part, rules: &[f64]) -> f64 {
        match part {
            Part::Rule(index) => rules[*index],
            Part::Word { role, cast: true, .. } => choice_entropy(&self.syntax.roles[*role]),
            Part::Word { .. } | Part::Text(_) => 0.0,
        }
    }

    /// Makes the story that `choose` leads to; it is given the weights of a choice and their sum, and returns an index.
    fn generate(&self, choose: impl FnMut(&[u64], u64) -> usize) -> Story {
        let story = Story {
            text: String::new(),
            nats: 0.0,
        };
        let mut teller = Teller {
            syntax: &self.syntax,
            choose,
            cast: vec![None; self.syntax.roles.len()],
            story,
        };
        teller.rule(0);
        teller.story
    }

    /// The −ln probability of each way to derive `text`.
    fn derivations(&self, text: &str) -> Vec<f64> {
        let mut found = Vec::new();
        let start = [Part::Rule(0)];
        let todo = Todo {
            parts: &start,
            after: None,
        };
        self.match_parts(&todo, text, &mut vec![None; self.syntax.roles.len()], 0.0, &mut found);
        found
    }

    /// Tries everything that `todo` can still say against the `rest` of a text, backtracking over the choices.
    fn match_parts(&self, todo: &Todo<'_>, rest: &str, cast: &mut Cast, nats: f64, found: &mut Vec<f64>) {
        let Some((part, parts)) = todo.parts.split_first() else {
            match todo.after {
                Some(after) => self.match_parts(after, rest, cast, nats, found),
                None if rest.is_empty() => found.push(nats),
                None => {}
            }
            return;
        };
        let next = Todo {
            parts,
            after: todo.after,
        };
        match part {
            Part::Text(words) => {
                if let Some(rest) = rest.strip_prefix(words.as_str()) {
                    self.match_parts(&next, rest, cast, nats, found);
                }
            }
            Part::Rule(index) => {
                let rule = &self.syntax.rules[*index];
                for (choice, parts) in rule.items.iter().enumerate() {
                    let inner = Todo {
                        parts,
                        after: Some(&next),
                    };
                    self.match_parts(&inner, rest, cast, nats + surprise(rule, choice), found);
                }
            }
            Part::Word {
                role,
                form,
                capital,
                cast: true,
            } => {
                let entries = &self.syntax.roles[*role];
                for (choice, words) in entries.items.iter().enumerate() {
                    if let Some(rest) = strip_word(rest, &words[*form], *capital) {
                        cast[*role] = Some(choice);
                        self.match_parts(&next, rest, cast, nats + surprise(entries, choice), found);
                    }
                }
                cast[*role] = None;
            }
            Part::Word {
                role,
                form,
                capital,
                cast: false,
            } => {
                let word = cast[*role].map(|entry| &self.syntax.roles[*role].items[entry][*form]);
                if let Some(rest) = word.and_then(|word| strip_word(rest, word, *capital)) {
                    self.match_parts(&next, rest, cast, nats, found);
                }
            }
        }
    }
}

/// Tells one story, choice by choice.
struct Teller<'a, F> {
    syntax: &'a Syntax,
    choose: F,
    cast: Cast,
    story: Story,
}

impl<F: FnMut(&[u64], u64) -> usize> Teller<'_, F> {
    fn rule(&mut self, index: usize) {
        let syntax = self.syntax;
        let rule = &syntax.rules[index];
        let choice = self.pick(rule);
        for part in &rule.items[choice] {
            match part {
                Part::Text(words) => self.story.text.push_str(words),
                Part::Rule(index) => self.rule(*index),
                Part::Word {
                    role,
                    form,
                    capital,
                    cast,
                } => {
                    let entries = &syntax.roles[*role];
                    if *cast {
                        self.cast[*role] = Some(self.pick(entries));
                    }
                    // `syntax.rs` has refused grammars that mention a role before it is cast.
                    if let Some(entry) = self.cast[*role] {
                        push_word(&mut self.story.text, &entries.items[entry][*form], *capital);
                    }
                }
            }
        }
    }

    fn pick<T>(&mut self, choices: &Choices<T>) -> usize {
        let choice = (self.choose)(&choices.weights, choices.total);
        self.story.nats += surprise(choices, choice);
        choice
    }
}

/// What is left to match: the parts of an alternative, and what follows it.
struct Todo<'a> {
    parts: &'a [Part],
    after: Option<&'a Todo<'a>>,
}

/// −ln of the probability of a choice.
fn surprise<T>(choices: &Choices<T>, choice: usize) -> f64 {
    (choices.total as f64 / choices.weights[choice] as f64).ln()
}

/// The entropy of one choice, in nats.
fn choice_entropy<T>(choices: &Choices<T>) -> f64 {
    (0..choices.items.len())
        .map(|choice| choices.weights[choice] as f64 / choices.total as f64 * surprise(choices, choice))
        .sum()
}

fn push_word(text: &mut String, word: &str, capital: bool) {
    let mut letters = word.chars();
    if capital {
        text.extend(letters.next().into_iter().flat_map(char::to_uppercase));
    }
    text.push_str(letters.as_str());
}

fn strip_word<'a>(text: &'a str, word: &str, capital: bool) -> Option<&'a str> {
    if !capital {
        return text.strip_prefix(word);
    }
    let mut written = String::with_capacity(word.len());
    push_word(&mut written, word, capital);
    text.strip_prefix(written.as_str())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// Every story of a small grammar, by running through all sequences of choices like an odometer.
    fn all_stories(grammar: &StoryGrammar) -> Vec<Story> {
        let mut stories = Vec::new();
        let mut script: Vec<usize> = Vec::new();
        loop {
            let mut sizes = Vec::new();
            stories.push(grammar.generate(|weights, _| {
                sizes.push(weights.len());
                script.get(sizes.len() - 1).copied().unwrap_or(0)
            }));
            script.resize(sizes.len(), 0);
            while script.last().is_some_and(|&last| last + 1 == sizes[script.len() - 1]) {
                script.pop();
            }
            match script.last_mut() {
                Some(last) => *last += 1,
                None => return stories,
            }
        }
    }

    const SMALL: &str = "\
[story]
*3 A {+animal} {verb}.
One {time}, a {+animal} {verb} and {+friend.He} came. The {animal} {verb}.
[verb]
ran
*2 sat
sat {place}
[place]
here
in {time}
[time]
day
night
week
@animal
cat
*2 dog
@friend | name | he
Tom | he
Mia | she
";

    #[test]
    fn the_probabilities_of_a_small_grammar_sum_to_one() {
        let grammar = StoryGrammar::parse(SMALL).unwrap();
        let stories = all_stories(&grammar);
        let verbs = 2 + 4;
        assert_eq!(stories.len(), 2 * verbs + 3 * 2 * verbs * 2 * verbs);
        let total: f64 = stories.iter().map(|story| (-story.nats).exp()).sum();
        assert!((total - 1.0).abs() < 1e-12, "{total}");

        let entropy: f64 = stories.iter().map(|story| (-story.nats).exp() * story.nats).sum();
        assert!((entropy - grammar.expected_nats()).abs() < 1e-12, "{entropy}");

        let texts: HashSet<_> = stories.iter().map(|story| story.text.as_str()).collect();
        assert_eq!(texts.len(), stories.len());
        assert!(
            texts.contains("One day, a cat ran and She came. The cat sat in week."),
            "{texts:?}"
        );
    }

    #[test]
    fn an_ambiguous_text_is_seen_to_be_ambiguous() {
        let grammar = StoryGrammar::parse("[story]\na{b}\nab\n[b]\nb\nc\n").unwrap();
        assert_eq!(grammar.derivations("ab").len(), 2);
        assert_eq!(grammar.derivations("ac").len(), 1);
        assert_eq!(grammar.derivations("abc").len(), 0);
    }

    #[test]
    fn every_story_has_one_derivation() {
        let grammar = StoryGrammar::built_in().unwrap();
        let mut rng = SplitMix64::new(11);
        for _ in 0..20_000 {
            let story = grammar.sample(&mut rng);
            let derivations = grammar.derivations(&story.text);
            assert_eq!(derivations.len(), 1, "{}", story.text);
            assert!((derivations[0] - story.nats).abs() < 1e-9, "{}", story.text);
        }
    }

    #[test]
    fn the_mean_over_samples_is_the_computed_entropy() {
        let grammar = StoryGrammar::built_in().unwrap();
        let mut rng = SplitMix64::new(12);
        let count = 20_000;
        let nats: Vec<f64> = (0..count).map(|_| grammar.sample(&mut rng).nats).collect();
        let mean = nats.iter().sum::<f64>() / f64::from(count);
        let variance = nats.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / f64::from(count - 1);
        let standard_error = (variance / f64::from(count)).sqrt();
        let expected = grammar.expected_nats();
        assert!(
            (mean - expected).abs() < 3.0 * standard_error,
            "{mean} ± {standard_error}, computed {expected}"
        );
        // e^30 stories of equal probability would be ten million million.
        assert!(expected > 30.0, "{expected}");
    }

    #[test]
    fn stories_are_well_formed_and_rarely_repeat() {
        let grammar = StoryGrammar::built_in().unwrap();
        let mut rng = SplitMix64::new(13);
        let mut seen = HashSet::new();
        for _ in 0..20_000 {
            let text = grammar.sample(&mut rng).text;
            assert!(text.ends_with(['.', '!', '"']), "{text}");
            assert!(text.starts_with(char::is_uppercase), "{text}");
            assert!(
                !text.contains(['{', '}', '*', '|', '\n']) && !text.contains("  "),
                "{text}"
            );
            assert!(
                text.split(". ")
                    .all(|sentence| !sentence.starts_with(char::is_lowercase)),
                "{text}"
            );
            assert_eq!(text.matches('"').count() % 2, 0, "{text}");
            seen.insert(text);
        }
        assert_eq!(seen.len(), 20_000);
    }

    #[test]
    fn what_is_no_story_is_not_recognised() {
        let grammar = StoryGrammar::built_in().unwrap();
        let story = grammar.sample(&mut SplitMix64::new(14));
        assert_eq!(
            grammar
                .recognise(&story.text)
                .map(|nats| (nats - story.nats).abs() < 1e-9),
            Some(true)
        );
        assert_eq!(grammar.recognise(&format!("{} ", story.text)), None);
        assert_eq!(grammar.recognise(story.text.trim_end_matches(['.', '!', '"'])), None);
        assert_eq!(grammar.recognise(""), None);
    }
}
