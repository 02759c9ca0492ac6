//! Lists of indexes, such as `0,2-4`.

/// Both ends of an interval.
type Interval = (i32, i32);

/// The intervals of a list that is in order, or what is wrong with it.
pub fn parse(text: &str, completions: i32) -> Result<Vec<Interval>, String> {
    let mut found: Vec<Interval> = vec![];
    for part in text.split(',').filter(|_| !text.is_empty()) {
        let (low, high) = interval(part, completions)?;
        if let Some((_, before)) = found.last().filter(|(_, before)| *before >= low) {
            return Err(format!("non-increasing order, previous: {before}, current: {low}"));
        }
        found.push((low, high));
    }
    Ok(found)
}

/// How many indexes intervals have.
pub fn count(intervals: &[Interval]) -> i32 {
    intervals.iter().map(|(low, high)| high - low + 1).sum()
}

/// The first index that is in both of two lists; what cannot be read is left out.
pub fn overlap(a: &str, b: &str, completions: i32) -> Option<i32> {
    let readable = |text: &str| -> Vec<Interval> {
        text.split(',').filter_map(|part| interval(part, completions).ok()).collect()
    };
    let (a, b) = (readable(a), readable(b));
    let (mut i, mut j) = (0, 0);
    while let (Some(x), Some(y)) = (a.get(i), b.get(j)) {
        if x.0 <= y.1 && y.0 <= x.1 {
            return Some(x.0.max(y.0));
        }
        if x.0 <= y.0 { i += 1 } else { j += 1 }
    }
    None
}

fn interval(text: &str, completions: i32) -> Result<Interval, String> {
    let number = |text: &str| {
        let read: Result<i64, _> = text.parse();
        let number = read.map_err(|_| format!("cannot convert string to integer for index: {text:?}"))?;
        i32::try_from(number)
            .ok()
            .filter(|n| *n < completions)
            .ok_or_else(|| format!("too large index: {text:?}"))
    };
    let ends: Vec<&str> = text.split('-').collect();
    match ends.as_slice() {
        [one] => number(one).map(|n| (n, n)),
        [low, high] => {
            let (low, high) = (number(low)?, number(high)?);
            if low >= high {
                return Err(format!("non-increasing order, previous: {low}, current: {high}"));
            }
            Ok((low, high))
        }
        _ => Err(format!(
            "the fragment {text:?} violates the requirement that an index interval can have at most two parts \
             separated by '-'"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_or_told() {
        assert_eq!(parse("", 3), Ok(vec![]));
        assert_eq!(parse("0,2-4", 5).map(|list| count(&list)), Ok(4));
        let fault = |text: &str| parse(text, 5).unwrap_err();
        assert_eq!(fault("1,1"), "non-increasing order, previous: 1, current: 1");
        assert_eq!(fault("2-2"), "non-increasing order, previous: 2, current: 2");
        assert_eq!(fault("3-7"), "too large index: \"7\"");
        assert_eq!(fault("-1"), "cannot convert string to integer for index: \"\"");
        assert!(fault("1-2-3").starts_with("the fragment \"1-2-3\" violates"));
    }

    #[test]
    fn overlaps_are_found_beside_what_cannot_be_read() {
        assert_eq!(overlap("0-1,3", "2,4", 5), None);
        assert_eq!(overlap("x,0-2", "2,9", 5), Some(2));
        assert_eq!(overlap("", "0", 5), None);
    }
}
