//! Slurm's lists of hosts, such as `gpu[01-03,7],login`.

/// The first host of a list; none if it is empty or not a list.
pub(crate) fn first_host(list: &str) -> Option<String> {
    let list = list.trim();
    // A comma in brackets does not end the first item.
    let mut depth = 0;
    let end = list
        .char_indices()
        .find(|&(_, letter)| {
            match letter {
                '[' => depth += 1,
                ']' => depth -= 1,
                _ => {}
            }
            letter == ',' && depth == 0
        })
        .map_or(list.len(), |(at, _)| at);
    let mut host = String::new();
    let mut rest = &list[..end];
    while let Some((before, bracket)) = rest.split_once('[') {
        let (choices, after) = bracket.split_once(']')?;
        host.push_str(before);
        host.push_str(choices.split([',', '-']).next()?);
        rest = after;
    }
    host.push_str(rest);
    (!host.is_empty()).then_some(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_host_of_each_form() {
        for (list, first) in [
            ("a", "a"),
            ("a,b", "a"),
            ("n[001-004,7]", "n001"),
            ("n[7,001-004],m", "n7"),
            ("rack[1-2]n[3-4]", "rack1n3"),
            ("gpu-[01,02].site.org,x", "gpu-01.site.org"),
        ] {
            assert_eq!(first_host(list).as_deref(), Some(first), "{list}");
        }
        assert_eq!(first_host(""), None);
        assert_eq!(first_host("n[1"), None);
    }
}
