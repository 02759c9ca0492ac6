//! What was said of nodes for pods of one signature, as long as the nodes do not change.

use crate::framework::Unfit;
use crate::table::Slot;
use std::collections::HashMap;
use std::sync::Arc;

/// Most templates that are remembered; the one unused for longest goes first.
const MEMOS: usize = 16;

type Said = Arc<(&'static str, Unfit)>;

/// What is remembered of one node.
#[derive(Clone, Default)]
struct Row {
    /// The node's generation when it was judged; 0 for never.
    judged: u64,
    /// The node's generation when it was scored; 0 for never.
    scored: u64,
    unfit: Option<Said>,
}

/// An answer from memory.
pub enum Verdict {
    Fits,
    Unfit(Said),
    Unknown,
}

/// The memory of one signature.
#[derive(Default)]
pub struct Memo {
    rows: Vec<Row>,
    /// `columns` scores for each row.
    scores: Vec<i64>,
    columns: usize,
}

impl Memo {
    /// What was said of a node in its present generation.
    #[must_use]
    pub fn verdict(&self, slot: Slot, generation: u64) -> Verdict {
        match self.rows.get(slot) {
            Some(row) if row.judged == generation => row.unfit.clone().map_or(Verdict::Fits, Verdict::Unfit),
            _ => Verdict::Unknown,
        }
    }

    pub fn remember(&mut self, slot: Slot, generation: u64, unfit: Option<&(&'static str, Unfit)>) {
        let row = self.row(slot);
        row.judged = generation;
        row.unfit = unfit.cloned().map(Arc::new);
    }

    /// Says how many scores a node has; another number than before forgets them.
    pub fn expect_scores(&mut self, columns: usize) {
        if self.columns != columns {
            self.columns = columns;
            self.scores.clear();
            self.rows.iter_mut().for_each(|row| row.scored = 0);
        }
    }

    /// The scores of a node, computed by `score` if the node has changed.
    pub fn scores(&mut self, slot: Slot, generation: u64, score: impl FnOnce(&mut [i64])) -> &[i64] {
        let at = slot * self.columns;
        if self.scores.len() < at + self.columns {
            self.scores.resize(at + self.columns, 0);
        }
        let end = at + self.columns;
        let row = self.row(slot);
        if row.scored != generation {
            row.scored = generation;
            score(&mut self.scores[at..end]);
        }
        &self.scores[at..end]
    }

    fn row(&mut self, slot: Slot) -> &mut Row {
        if self.rows.len() <= slot {
            self.rows.resize(slot + 1, Row::default());
        }
        &mut self.rows[slot]
    }
}

/// The memories of the templates that were scheduled last.
#[derive(Default)]
pub struct Memos {
    epoch: u64,
    turn: u64,
    memos: HashMap<u64, (u64, Memo)>,
}

impl Memos {
    /// The memory of a signature. A new epoch of the table makes all forget.
    pub fn of(&mut self, signature: u64, epoch: u64) -> &mut Memo {
        if self.epoch != epoch {
            self.epoch = epoch;
            self.memos.clear();
        }
        self.turn += 1;
        if self.memos.len() >= MEMOS && !self.memos.contains_key(&signature) {
            let oldest = self.memos.iter().min_by_key(|(_, (used, _))| *used).map(|(key, _)| *key);
            oldest.and_then(|key| self.memos.remove(&key));
        }
        let (used, memo) = self.memos.entry(signature).or_default();
        *used = self.turn;
        memo
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_memory_is_as_good_as_the_nodes_generation() {
        let mut memo = Memo::default();
        assert!(matches!(memo.verdict(3, 7), Verdict::Unknown));
        memo.remember(3, 7, None);
        assert!(matches!(memo.verdict(3, 7), Verdict::Fits));
        assert!(matches!(memo.verdict(3, 8), Verdict::Unknown));
        memo.expect_scores(2);
        assert_eq!(memo.scores(3, 7, |row| row.copy_from_slice(&[1, 2])), [1, 2]);
        assert_eq!(memo.scores(3, 7, |_| panic!("remembered")), [1, 2]);
        assert_eq!(memo.scores(3, 8, |row| row.copy_from_slice(&[3, 4])), [3, 4]);
    }

    #[test]
    fn the_template_unused_for_longest_is_forgotten() {
        let mut memos = Memos::default();
        for signature in 0..MEMOS as u64 {
            memos.of(signature, 1).remember(0, 1, None);
        }
        memos.of(0, 1);
        memos.of(99, 1);
        assert!(matches!(memos.of(0, 1).verdict(0, 1), Verdict::Fits));
        assert!(matches!(memos.of(1, 1).verdict(0, 1), Verdict::Unknown));
        assert!(matches!(memos.of(0, 2).verdict(0, 1), Verdict::Unknown), "another epoch");
    }
}
