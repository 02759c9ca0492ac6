//! Transactions as bytes: one netlink batch.

use super::expr::{len_of, type_of};
use super::{ChainType, Element, Family, Maps, Op, Set, Transaction, Value};
use crate::netlink::{ACK, APPEND, CREATE, Message, REQUEST};

const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const SUBSYSTEM: u16 = 10;

const NEWTABLE: u16 = 0;
const DELTABLE: u16 = 2;
const NEWCHAIN: u16 = 3;
const DELCHAIN: u16 = 5;
const NEWRULE: u16 = 6;
const DELRULE: u16 = 8;
const NEWSET: u16 = 9;
const DELSET: u16 = 11;
const NEWSETELEM: u16 = 12;
const DELSETELEM: u16 = 14;

/// Elements in one message: their list is an attribute, whose length has 16 bits.
const ELEMENTS_PER_MESSAGE: usize = 400;

const SET_MAP: u32 = 0x8;
const SET_INTERVAL: u32 = 0x4;
const SET_TIMEOUT: u32 = 0x10;
const SET_EVAL: u32 = 0x20;
const SET_CONCAT: u32 = 0x80;
const DATA_VERDICT_TYPE: u32 = 0xffff_ff00;
const DATA_VALUE: u16 = 1;

/// An encoded batch, which remembers what each message was for.
pub(super) struct Batch {
    pub bytes: Vec<u8>,
    /// By sequence number: the transaction and the step.
    steps: Vec<Option<(usize, usize)>>,
}

impl Batch {
    /// How many messages it has, beside its begin and its end.
    pub fn messages(&self) -> usize {
        self.steps.iter().flatten().count()
    }

    /// What the message with this sequence number was to do.
    pub fn describe(&self, transactions: &[Transaction], seq: u32) -> String {
        let step = self.steps.get(seq as usize).copied().flatten();
        match step.and_then(|(t, o)| Some((transactions.get(t)?, transactions.get(t)?.ops.get(o)?))) {
            Some((transaction, op)) => format!("{} in table {}", describe(op), transaction.table),
            None => "carry out a batch".to_owned(),
        }
    }
}

fn describe(op: &Op) -> String {
    match op {
        Op::AddTable => "add the table".into(),
        Op::DeleteTable => "delete the table".into(),
        Op::AddChain { name, .. } => format!("add chain {name}"),
        Op::DeleteChain(name) => format!("delete chain {name}"),
        Op::AddRule { chain, .. } => format!("add a rule to chain {chain}"),
        Op::AddSet(set) => format!("add set {}", set.name),
        Op::DeleteSet(name) => format!("delete set {name}"),
        Op::AddElements { set, .. } => format!("add elements to set {set}"),
        Op::DeleteElements { set, .. } => format!("delete elements of set {set}"),
    }
}

/// The address family's number.
pub(super) fn family(family: Family) -> u8 {
    match family {
        Family::Ip => 2,
        Family::Ip6 => 10,
    }
}

/// The batch of all transactions. The last step asks for an acknowledgement, failures always answer.
pub(super) fn encode(transactions: &[Transaction]) -> Batch {
    let mut messages: Vec<(Message, Option<(usize, usize)>)> = vec![(edge(BATCH_BEGIN), None)];
    for (t, transaction) in transactions.iter().enumerate() {
        for (o, op) in transaction.ops.iter().enumerate() {
            let set_id = u32::try_from(messages.len()).unwrap_or(u32::MAX);
            messages.extend(encode_op(transaction, op, set_id).into_iter().map(|m| (m, Some((t, o)))));
        }
    }
    if let Some((last, _)) = messages.last_mut() {
        *last = last.clone().flags(ACK);
    }
    messages.push((edge(BATCH_END), None));
    let mut batch = Batch { bytes: Vec::new(), steps: Vec::with_capacity(messages.len()) };
    for (seq, (message, step)) in messages.into_iter().enumerate() {
        batch.bytes.extend(message.finish(u32::try_from(seq).unwrap_or(u32::MAX)));
        batch.steps.push(step);
    }
    batch
}

fn edge(kind: u16) -> Message {
    let mut fixed = [0; 4];
    fixed[2..].copy_from_slice(&SUBSYSTEM.to_be_bytes());
    Message::new(kind, REQUEST).raw(&fixed)
}

fn start(transaction: &Transaction, kind: u16, flags: u16) -> Message {
    Message::new(SUBSYSTEM << 8 | kind, REQUEST | flags)
        .raw(&[family(transaction.family), 0, 0, 0])
        .text(1, transaction.table)
}

fn encode_op(t: &Transaction, op: &Op, set_id: u32) -> Vec<Message> {
    match op {
        Op::AddTable => vec![start(t, NEWTABLE, CREATE)],
        Op::DeleteTable => vec![start(t, DELTABLE, 0)],
        Op::AddChain { name, hook } => {
            let message = start(t, NEWCHAIN, CREATE).text(3, name);
            let Some(hook) = hook else { return vec![message] };
            let kind = match hook.kind {
                ChainType::Filter => "filter",
                ChainType::Nat => "nat",
            };
            let message =
                message.nest(4, |m| m.be32(1, hook.at as u32).be32(2, hook.priority.cast_unsigned()));
            vec![message.text(7, kind)]
        }
        Op::DeleteChain(name) => {
            vec![start(t, DELRULE, 0).text(2, name), start(t, DELCHAIN, 0).text(3, name)]
        }
        Op::AddRule { chain, rule } => {
            let message = start(t, NEWRULE, CREATE | APPEND).text(2, chain);
            vec![message.list(4, rule, |m, e| e.encode(t.family, m))]
        }
        Op::AddSet(set) => vec![add_set(start(t, NEWSET, CREATE), set, set_id)],
        Op::DeleteSet(name) => vec![start(t, DELSET, 0).text(2, name)],
        Op::AddElements { set, elements } => chunks(elements, || start(t, NEWSETELEM, CREATE).text(2, set)),
        Op::DeleteElements { set, elements } => chunks(elements, || start(t, DELSETELEM, 0).text(2, set)),
    }
}

fn add_set(message: Message, set: &Set, id: u32) -> Message {
    let flag = |on: bool, bits: u32| if on { bits } else { 0 };
    let flags = flag(set.maps != Maps::Nothing, SET_MAP)
        | flag(set.dynamic, SET_TIMEOUT | SET_EVAL)
        | flag(set.intervals, SET_INTERVAL | SET_CONCAT);
    let message = message
        .text(2, &set.name)
        .be32(3, flags)
        .be32(4, type_of(&set.key))
        .be32(5, len_of(&set.key))
        .be32(10, id);
    let message = match &set.maps {
        Maps::Nothing => message,
        Maps::Verdict => message.be32(6, DATA_VERDICT_TYPE),
        Maps::Fields(fields) => message.be32(6, type_of(fields)).be32(7, len_of(fields)),
    };
    message.nest(9, |m| {
        let m = if set.size > 0 { m.be32(1, set.size) } else { m };
        if !set.intervals {
            return m;
        }
        m.list(2, &set.key, |m, f| m.nest(1, |m| m.be32(1, len_of(&[*f]))))
    })
}

fn chunks(elements: &[Element], start: impl Fn() -> Message) -> Vec<Message> {
    elements.chunks(ELEMENTS_PER_MESSAGE).map(|part| start().list(3, part, add_element)).collect()
}

fn add_element(message: Message, element: &Element) -> Message {
    message.nest(1, |m| {
        let m = m.nest(1, |m| m.attr(DATA_VALUE, &element.key));
        let m = match &element.end {
            Some(end) => m.nest(10, |m| m.attr(DATA_VALUE, end)),
            None => m,
        };
        match &element.value {
            Some(Value::Bytes(bytes)) => m.nest(2, |m| m.attr(DATA_VALUE, bytes)),
            Some(Value::Verdict(verdict)) => m.nest(2, |m| verdict.encode(m)),
            None => m,
        }
    })
}
