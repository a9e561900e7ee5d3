//! The notation of a story grammar, read into rules and roles. Drawing from the grammar is `grammar.rs`.
//!
//! ```text
//! # a comment
//! [rule]                     a rule, and below it its alternatives, one a line
//! *3 text with {slots}       an alternative three times as likely as one without a weight
//! @hero | name | he          a role with its forms, and below it its entries
//! Lily | she                 an entry: one word for each form
//! ```
//!
//! A slot is `{rule}`, which chooses an alternative of a rule defined further down; `{+role}`, which casts the role, and
//! `{role}` or `{role.form}`, which mention the entry that was cast. A form with a capital letter (`{hero.He}`) writes the
//! word with one. The first rule is where a story starts.

use std::collections::{BTreeSet, HashMap};

use crate::error::DataError;

/// A grammar in which every slot points somewhere.
#[derive(Debug)]
pub(super) struct Syntax {
    /// A rule refers only to rules after it, so a derivation always ends. The first one is the story.
    pub(super) rules: Vec<Choices<Vec<Part>>>,
    /// An entry of a role has one word for each form.
    pub(super) roles: Vec<Choices<Vec<String>>>,
}

/// Things of which one is chosen, each with its weight.
#[derive(Debug)]
pub(super) struct Choices<T> {
    pub(super) items: Vec<T>,
    pub(super) weights: Vec<u64>,
    /// The sum of the weights.
    pub(super) total: u64,
}

/// A piece of an alternative.
#[derive(Debug, PartialEq)]
pub(super) enum Part {
    /// Written as it stands.
    Text(String),
    /// An alternative of the rule with this index.
    Rule(usize),
    /// A word of a role's entry. `cast` chooses the entry; otherwise it was chosen before.
    Word {
        role: usize,
        form: usize,
        capital: bool,
        cast: bool,
    },
}

/// Reads and checks a grammar: a rule refers only to rules below it, and whatever is chosen, a role is cast at most once
/// and before it is mentioned. So every choice is made in the one place where it is written down.
///
/// # Errors
/// [`DataError::Grammar`] with the line that is at fault.
pub(super) fn parse(text: &str) -> Result<Syntax, DataError> {
    let sections = split(text)?;
    let names = number(&sections)?;
    let mut syntax = Syntax {
        rules: Vec::new(),
        roles: Vec::new(),
    };
    // The roles that a rule casts and those it needs cast before it. Known for all rules below when a rule is read, because
    // the sections are read from the last to the first.
    let mut casting: HashMap<usize, Casting> = HashMap::new();
    for section in sections.iter().rev() {
        if let Some(forms) = &section.forms {
            syntax.roles.push(section.choices(|item| entry(item, forms.len()))?);
        } else {
            let rule = section.choices(|item| parts(item, &names))?;
            let index = names[section.name].index;
            casting.insert(index, check_casting(section, &rule, &casting)?);
            syntax.rules.push(rule);
        }
    }
    if let Some(role) = casting.get(&0).and_then(|story| story.needs.first()) {
        let name = sections
            .iter()
            .filter(|section| section.forms.is_some())
            .nth(*role)
            .map_or("", |section| section.name);
        return Err(fault(
            1,
            format!("role '{name}' is mentioned where it may not have been cast"),
        ));
    }
    syntax.rules.reverse();
    syntax.roles.reverse();
    Ok(syntax)
}

fn fault(line: usize, problem: impl Into<String>) -> DataError {
    DataError::Grammar {
        line,
        problem: problem.into(),
    }
}

/// A header and the lines below it.
struct Section<'a> {
    name: &'a str,
    line: usize,
    /// The names of a role's forms; `None` for a rule.
    forms: Option<Vec<&'a str>>,
    items: Vec<Item<'a>>,
}

struct Item<'a> {
    line: usize,
    weight: u64,
    text: &'a str,
}

impl Section<'_> {
    fn choices<T>(&self, read: impl Fn(&Item<'_>) -> Result<T, DataError>) -> Result<Choices<T>, DataError> {
        let items = self.items.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        let weights: Vec<u64> = self.items.iter().map(|item| item.weight).collect();
        let total = weights.iter().sum();
        if total == 0 {
            return Err(fault(self.line, format!("'{}' has no lines below it", self.name)));
        }
        Ok(Choices { items, weights, total })
    }
}

fn split(text: &str) -> Result<Vec<Section<'_>>, DataError> {
    let mut sections: Vec<Section<'_>> = Vec::new();
    for (line, content) in (1..).zip(text.lines()) {
        if content.is_empty() || content.starts_with('#') {
            continue;
        }
        if let Some(name) = content.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            sections.push(Section {
                name,
                line,
                forms: None,
                items: Vec::new(),
            });
        } else if let Some(header) = content.strip_prefix('@') {
            let (name, forms) = header.split_once(" | ").unwrap_or((header, header));
            sections.push(Section {
                name,
                line,
                forms: Some(forms.split(" | ").collect()),
                items: Vec::new(),
            });
        } else if let Some(section) = sections.last_mut() {
            let (weight, text) = weighted(line, content)?;
            section.items.push(Item { line, weight, text });
        } else {
            return Err(fault(line, "expected a [rule] before the first text"));
        }
    }
    match sections.first() {
        Some(Section { forms: None, .. }) => Ok(sections),
        _ => Err(fault(1, "expected a [rule] first")),
    }
}

/// Takes the weight, 1 if none is written, off the front of a line.
fn weighted(line: usize, content: &str) -> Result<(u64, &str), DataError> {
    let Some((digits, text)) = content.strip_prefix('*').and_then(|rest| rest.split_once(' ')) else {
        return Ok((1, content));
    };
    match digits.parse::<u32>() {
        Ok(weight) if weight > 0 => Ok((weight.into(), text)),
        _ => Err(fault(
            line,
            format!("expected a positive whole number as the weight, found '{digits}'"),
        )),
    }
}

/// What a slot's name stands for.
struct Name<'a> {
    /// Among the rules or among the roles.
    index: usize,
    line: usize,
    forms: Option<&'a [&'a str]>,
}

fn number<'a>(sections: &'a [Section<'a>]) -> Result<HashMap<&'a str, Name<'a>>, DataError> {
    let mut names = HashMap::new();
    let (mut rules, mut roles) = (0, 0);
    for section in sections {
        let next = if section.forms.is_some() {
            &mut roles
        } else {
            &mut rules
        };
        let name = Name {
            index: *next,
            line: section.line,
            forms: section.forms.as_deref(),
        };
        *next += 1;
        if names.insert(section.name, name).is_some() {
            return Err(fault(section.line, format!("'{}' is defined twice", section.name)));
        }
    }
    Ok(names)
}

fn entry(item: &Item<'_>, forms: usize) -> Result<Vec<String>, DataError> {
    let words: Vec<String> = item.text.split(" | ").map(str::to_owned).collect();
    if words.len() == forms {
        Ok(words)
    } else {
        Err(fault(
            item.line,
            format!("expected {forms} forms, found {}", words.len()),
        ))
    }
}

fn parts(item: &Item<'_>, names: &HashMap<&str, Name<'_>>) -> Result<Vec<Part>, DataError> {
    let mut parts = Vec::new();
    let mut rest = item.text;
    while let Some((before, after)) = rest.split_once('{') {
        if !before.is_empty() {
            parts.push(Part::Text(before.to_owned()));
        }
        let Some((slot, after)) = after.split_once('}') else {
            return Err(fault(item.line, "expected '}' after '{'"));
        };
        parts.push(part(item.line, slot, names)?);
        rest = after;
    }
    if !rest.is_empty() {
        parts.push(Part::Text(rest.to_owned()));
    }
    Ok(parts)
}

fn part(line: usize, slot: &str, names: &HashMap<&str, Name<'_>>) -> Result<Part, DataError> {
    let cast = slot.starts_with('+');
    let (name, form) = slot
        .trim_start_matches('+')
        .split_once('.')
        .map_or((slot.trim_start_matches('+'), None), |(n, f)| (n, Some(f)));
    let unknown = || fault(line, format!("found no rule or role for '{{{slot}}}'"));
    let target = names.get(name).ok_or_else(unknown)?;
    let Some(forms) = target.forms else {
        if cast || form.is_some() {
            return Err(unknown());
        }
        if target.line > line {
            return Ok(Part::Rule(target.index));
        }
        return Err(fault(line, format!("rule '{name}' must be defined below its use")));
    };
    let capital = form.is_some_and(|form| form.starts_with(char::is_uppercase));
    let form = match form {
        None => 0,
        Some(form) => forms
            .iter()
            .position(|known| known.eq_ignore_ascii_case(form))
            .ok_or_else(unknown)?,
    };
    Ok(Part::Word {
        role: target.index,
        form,
        capital,
        cast,
    })
}

/// What a rule does to the cast of a story, whichever alternatives are chosen.
#[derive(Clone, Default)]
struct Casting {
    /// Roles that are cast by every choice, and by some choice.
    surely: BTreeSet<usize>,
    maybe: BTreeSet<usize>,
    /// Roles that some choice mentions without casting them itself.
    needs: BTreeSet<usize>,
}

impl Casting {
    /// What happens when `next` follows. `Err` where a role could be cast twice, or first mentioned and then cast.
    fn then(&mut self, next: &Self) -> Result<(), ()> {
        self.needs.extend(next.needs.difference(&self.surely));
        if !self.maybe.is_disjoint(&next.maybe) || !self.needs.is_disjoint(&next.maybe) {
            return Err(());
        }
        self.surely.extend(&next.surely);
        self.maybe.extend(&next.maybe);
        Ok(())
    }

    /// What happens when either of two alternatives is chosen.
    fn or(&mut self, other: &Self) {
        self.surely.retain(|role| other.surely.contains(role));
        self.maybe.extend(&other.maybe);
        self.needs.extend(&other.needs);
    }
}

fn check_casting(
    section: &Section<'_>,
    rule: &Choices<Vec<Part>>,
    below: &HashMap<usize, Casting>,
) -> Result<Casting, DataError> {
    let mut whole: Option<Casting> = None;
    for (item, parts) in section.items.iter().zip(&rule.items) {
        let mut own = Casting::default();
        for part in parts {
            let next = match part {
                Part::Text(_) => continue,
                Part::Rule(index) => below[index].clone(),
                Part::Word { role, cast, .. } => {
                    let role = BTreeSet::from([*role]);
                    if *cast {
                        Casting {
                            surely: role.clone(),
                            maybe: role,
                            needs: BTreeSet::new(),
                        }
                    } else {
                        Casting {
                            needs: role,
                            ..Casting::default()
                        }
                    }
                }
            };
            own.then(&next)
                .map_err(|()| fault(item.line, "a role is cast twice, or mentioned before it is cast"))?;
        }
        match &mut whole {
            None => whole = Some(own),
            Some(whole) => whole.or(&own),
        }
    }
    Ok(whole.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_and_weights_are_read() -> Result<(), DataError> {
        let syntax =
            parse("# comment\n[story]\n*3 {+who.He} ran {how}\nNobody\n\n[how]\nfast\n@who | name | he\nTom | he\n")?;
        assert_eq!((syntax.rules.len(), syntax.roles.len()), (2, 1));
        assert_eq!(
            (syntax.rules[0].weights.as_slice(), syntax.rules[0].total),
            ([3, 1].as_slice(), 4)
        );
        let first = [
            Part::Word {
                role: 0,
                form: 1,
                capital: true,
                cast: true,
            },
            Part::Text(" ran ".to_owned()),
            Part::Rule(1),
        ];
        assert_eq!(syntax.rules[0].items[0], first);
        assert_eq!(syntax.roles[0].items[0], ["Tom", "he"]);
        Ok(())
    }

    #[test]
    fn each_fault_is_found_on_its_line() {
        for (text, line, problem) in [
            ("", 1, "expected a [rule] first"),
            ("@who\nTom\n", 1, "expected a [rule] first"),
            ("text\n", 1, "before the first text"),
            ("[a]\n[b]\nx\n", 1, "no lines below"),
            ("[a]\n*0 x\n", 2, "positive whole number"),
            ("[a]\n*-1 x\n", 2, "'-1'"),
            ("[a]\nx\n[a]\ny\n", 3, "defined twice"),
            ("[a]\n{b\n", 2, "expected '}'"),
            ("[a]\n{b}\n", 2, "'{b}'"),
            ("[a]\n{+b}\n[b]\nx\n", 2, "'{+b}'"),
            ("[a]\n{+b.c}\n@b\nx\n", 2, "'{+b.c}'"),
            ("[a]\nx{a}\n", 2, "defined below"),
            ("[a]\n{b}\n[b]\nx{a}\n", 4, "defined below"),
            ("[a]\n{+b}\n@b | c | d\nx\n", 4, "expected 2 forms, found 1"),
            ("[a]\n{b}\n@b\nx\n", 1, "role 'b' is mentioned"),
            ("[a]\n{c} {b}\n[c]\n{+b}\ny\n@b\nx\n", 1, "role 'b' is mentioned"),
            ("[a]\n{+b} {c}\n[c]\n{+b}\ny\n@b\nx\n", 2, "cast twice"),
            ("[a]\n{b} {+b}\n@b\nx\n", 2, "before it is cast"),
        ] {
            match parse(text) {
                Err(DataError::Grammar {
                    line: found,
                    problem: message,
                }) => {
                    assert_eq!(found, line, "{text:?}: {message}");
                    assert!(message.contains(problem), "{text:?}: {message}");
                }
                other => panic!("{text:?} gives {other:?}"),
            }
        }
    }
}
