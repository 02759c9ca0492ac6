//! Sets of completion indexes, kept as runs so that a Job of a million indexes costs no more than its gaps, and
//! their text form: `1,3-5,7`. Pure.

/// A set of indexes: runs that are in order and do not touch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Indexes(Vec<(u32, u32)>);

impl Indexes {
    /// Reads a set; what cannot be read, or is not below `limit`, is left out.
    #[must_use]
    pub fn parse(text: &str, limit: u32) -> Self {
        let mut runs = vec![];
        for part in text.split(',').filter(|p| !p.is_empty()) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            if let (Ok(first), Ok(last)) = (first.parse::<u32>(), last.parse::<u32>())
                && first <= last
                && first < limit
            {
                runs.push((first, last.min(limit - 1)));
            }
        }
        Self::of_runs(runs)
    }

    fn of_runs(mut runs: Vec<(u32, u32)>) -> Self {
        runs.sort_unstable();
        let mut merged: Vec<(u32, u32)> = Vec::with_capacity(runs.len());
        for (first, last) in runs {
            match merged.last_mut() {
                Some((_, end)) if first <= end.saturating_add(1) => *end = (*end).max(last),
                _ => merged.push((first, last)),
            }
        }
        Self(merged)
    }

    #[must_use]
    pub fn contains(&self, index: u32) -> bool {
        let after = self.0.partition_point(|(first, _)| *first <= index);
        after > 0 && self.0[after - 1].1 >= index
    }

    #[must_use]
    pub fn count(&self) -> usize {
        self.0.iter().map(|(first, last)| (last - first) as usize + 1).sum()
    }

    /// The indexes of both sets.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        Self::of_runs(self.0.iter().chain(&other.0).copied().collect())
    }

    /// How many indexes are in both sets.
    #[must_use]
    pub fn common(&self, other: &Self) -> usize {
        self.count() + other.count() - self.union(other).count()
    }

    /// The first `count` indexes below `limit` that are not in the set.
    #[must_use]
    pub fn missing(&self, limit: u32, count: usize) -> Vec<u32> {
        let (mut next, mut found) = (0, vec![]);
        for (first, last) in self.0.iter().copied().chain([(limit, limit)]) {
            let room = count - found.len();
            found.extend((next..first.min(limit)).take(room));
            next = last.saturating_add(1);
        }
        found
    }
}

impl FromIterator<u32> for Indexes {
    fn from_iter<T: IntoIterator<Item = u32>>(indexes: T) -> Self {
        Self::of_runs(indexes.into_iter().map(|n| (n, n)).collect())
    }
}

/// Runs of three and more are written with a dash.
impl std::fmt::Display for Indexes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (i, (first, last)) in self.0.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            match last - first {
                0 => write!(f, "{comma}{first}")?,
                1 => write!(f, "{comma}{first},{last}")?,
                _ => write!(f, "{comma}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn set(list: &[u32]) -> Indexes {
        list.iter().copied().collect()
    }

    #[test]
    fn sets_are_written_as_the_documentation_shows() {
        assert_eq!(set(&[7, 1, 3, 4, 5]).to_string(), "1,3-5,7");
        assert_eq!(set(&[0, 1]).to_string(), "0,1");
        assert_eq!(Indexes::parse("1,3-5,7", 7), set(&[1, 3, 4, 5]));
        assert_eq!(set(&[]).to_string(), "");
    }

    #[test]
    fn a_huge_set_is_small() {
        let all = Indexes::parse("0-999999998", 1_000_000_000);
        assert_eq!((all.0.len(), all.count()), (1, 999_999_999));
        assert_eq!(all.missing(1_000_000_000, 5), [999_999_999]);
    }

    proptest::proptest! {
        #[test]
        fn it_is_a_set(a in proptest::collection::btree_set(0u32..120, 0..60),
                       b in proptest::collection::btree_set(0u32..120, 0..60), wanted in 0usize..20) {
            let (x, y): (Indexes, Indexes) = (a.iter().copied().collect(), b.iter().copied().collect());
            proptest::prop_assert_eq!(&Indexes::parse(&x.to_string(), 200), &x);
            proptest::prop_assert_eq!(x.count(), a.len());
            let both: BTreeSet<u32> = a.union(&b).copied().collect();
            proptest::prop_assert_eq!(x.union(&y), both.into_iter().collect::<Indexes>());
            proptest::prop_assert_eq!(x.common(&y), a.intersection(&b).count());
            for n in 0..121 {
                proptest::prop_assert_eq!(x.contains(n), a.contains(&n));
            }
            let missing: Vec<u32> = (0..100).filter(|n| !a.contains(n)).take(wanted).collect();
            proptest::prop_assert_eq!(x.missing(100, wanted), missing);
        }
    }
}
