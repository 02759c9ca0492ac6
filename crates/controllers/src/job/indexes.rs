//! Sets of completion indexes in their text form: `1,3-5,7`. Pure.

use std::collections::BTreeSet;

/// Reads a set; what cannot be read, or is not below `limit`, is left out.
#[must_use]
pub fn parse(text: &str, limit: u32) -> BTreeSet<u32> {
    let mut set = BTreeSet::new();
    for part in text.split(',').filter(|p| !p.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(first), Ok(last)) = (first.parse::<u32>(), last.parse::<u32>()) {
            set.extend((first..=last).take_while(|n| *n < limit));
        }
    }
    set
}

/// Runs of three and more are written with a dash.
#[must_use]
pub fn format(set: &BTreeSet<u32>) -> String {
    let mut runs: Vec<(u32, u32)> = vec![];
    for n in set {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == *n => *last = *n,
            _ => runs.push((*n, *n)),
        }
    }
    let text = |(first, last): (u32, u32)| match last - first {
        0 => first.to_string(),
        1 => format!("{first},{last}"),
        _ => format!("{first}-{last}"),
    };
    runs.into_iter().map(text).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_written_as_the_documentation_shows() {
        assert_eq!(format(&[1, 3, 4, 5, 7].into()), "1,3-5,7");
        assert_eq!(format(&[0, 1].into()), "0,1");
        assert_eq!(parse("1,3-5,7", 7), [1, 3, 4, 5].into());
    }

    proptest::proptest! {
        #[test]
        fn reading_is_the_reverse_of_writing(set in proptest::collection::btree_set(0u32..200, 0..60)) {
            proptest::prop_assert_eq!(parse(&format(&set), 200), set);
        }
    }
}
