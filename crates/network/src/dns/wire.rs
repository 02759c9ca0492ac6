//! From a request's bytes to a reply's. Pure: no socket, no clock; garbage is answered or dropped, never
//! trusted.

use super::zone::{Answer, Records, Zone};
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, Record, RecordType};

/// Length of a message's header.
const HEADER: usize = 12;
/// Longest reply over UDP to a client that does not say what it takes.
const UDP_DEFAULT: u16 = 512;
/// Longest reply over UDP that is sent to anyone.
const UDP_MOST: u16 = 4096;
/// What we say that we take ourselves: what passes every link unfragmented.
const OUR_PAYLOAD: u16 = 1232;

/// How a request came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    Udp,
    Tcp,
}

/// What to do about a request.
#[derive(Debug)]
pub enum Step {
    /// Nothing: it is no request.
    Ignore,
    Reply(Reply),
    /// Ask others; `unknown` is the reply if there is nobody to ask.
    Forward {
        unknown: Reply,
    },
    /// Ours up to an alias: ask others for its target and [`Reply::append`] what they say.
    Follow {
        reply: Reply,
        target: Name,
    },
}

/// A reply in the making.
#[derive(Debug)]
pub struct Reply {
    message: Message,
    limit: u16,
}

/// Reads a request and answers it as far as the zone goes. `recursive`: names of others will be resolved.
#[must_use]
pub fn handle(
    bytes: &[u8],
    over: Over,
    zone: &Zone,
    records: &dyn Records,
    turn: u64,
    recursive: bool,
) -> Step {
    let Some(header) = bytes.first_chunk::<HEADER>() else { return Step::Ignore };
    // A reply is never answered, or two servers would talk for ever.
    if header[2] & 0x80 != 0 {
        return Step::Ignore;
    }
    let id = u16::from_be_bytes([header[0], header[1]]);
    let op = OpCode::from_u8(header[2] >> 3 & 0xf);
    if op != OpCode::Query {
        return Step::Reply(Reply::error(id, op, ResponseCode::NotImp));
    }
    let format_error = || Step::Reply(Reply::error(id, op, ResponseCode::FormErr));
    if u16::from_be_bytes([header[4], header[5]]) != 1 {
        return format_error();
    }
    let Ok(request) = Message::from_vec(bytes) else { return format_error() };
    let [query] = request.queries.as_slice() else { return format_error() };
    let mut reply = Reply::to(&request, over, recursive);
    if request.edns.as_ref().is_some_and(|e| e.version() > 0) {
        return Step::Reply(reply.code(ResponseCode::BADVERS));
    }
    if !matches!(query.query_class, DNSClass::IN | DNSClass::ANY)
        || matches!(query.query_type, RecordType::AXFR | RecordType::IXFR)
    {
        return Step::Reply(reply.code(ResponseCode::Refused));
    }
    match zone.answer(&query.name, query.query_type, records, turn) {
        Answer::Elsewhere => Step::Forward { unknown: reply.code(ResponseCode::Refused) },
        Answer::UnknownAddress => Step::Forward { unknown: reply.code(ResponseCode::NXDomain) },
        Answer::Here(here) => {
            reply.message.metadata.authoritative = true;
            reply.message.metadata.response_code = here.code;
            reply.message.answers = here.answers;
            reply.message.additionals = here.additionals;
            if reply.message.answers.is_empty() {
                reply.message.authorities = vec![zone.soa()];
            }
            match here.follow {
                Some(target) => Step::Follow { reply, target },
                None => Step::Reply(reply),
            }
        }
    }
}

/// The request that asks others for `name`, with the type of the original question.
#[must_use]
pub fn question(id: u16, name: Name, kind: RecordType) -> Vec<u8> {
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(name, kind));
    message.set_edns(our_edns());
    message.to_vec().unwrap_or_default()
}

/// The name and type that a request asks for.
#[must_use]
pub fn asked(bytes: &[u8]) -> Option<Query> {
    Message::from_vec(bytes).ok()?.queries.into_iter().next()
}

/// Whether `reply` is the reply to `request`: same number, same question. Both as bytes.
#[must_use]
pub fn matches(request: &[u8], reply: &[u8]) -> bool {
    let is_reply = reply.len() >= HEADER && reply[2] & 0x80 != 0 && request.get(..2) == reply.get(..2);
    is_reply && asked(request).is_some_and(|q| asked(reply) == Some(q))
}

/// Whether a reply says that it was cut.
#[must_use]
pub fn is_truncated(reply: &[u8]) -> bool {
    reply.get(2).is_some_and(|flags| flags & 0x02 != 0)
}

impl Reply {
    fn to(request: &Message, over: Over, recursive: bool) -> Self {
        let mut message = Message::response(request.metadata.id, OpCode::Query);
        message.metadata.recursion_desired = request.metadata.recursion_desired;
        message.metadata.checking_disabled = request.metadata.checking_disabled;
        message.metadata.recursion_available = recursive;
        message.queries.clone_from(&request.queries);
        let payload = request.edns.as_ref().map_or(UDP_DEFAULT, Edns::max_payload);
        if request.edns.is_some() {
            message.set_edns(our_edns());
        }
        let limit = if over == Over::Tcp { u16::MAX } else { payload.clamp(UDP_DEFAULT, UDP_MOST) };
        Self { message, limit }
    }

    fn error(id: u16, op: OpCode, code: ResponseCode) -> Self {
        Self { message: Message::error_msg(id, op, code), limit: UDP_DEFAULT }
    }

    /// The reply with another code.
    #[must_use]
    pub fn code(mut self, code: ResponseCode) -> Self {
        self.message.metadata.response_code = code;
        self
    }

    /// The code as a number, for counting.
    #[must_use]
    pub fn response_code(&self) -> ResponseCode {
        self.message.metadata.response_code
    }

    /// Adds what others said about an alias' target.
    #[must_use]
    pub fn append(mut self, theirs: &[u8]) -> Self {
        let Ok(theirs) = Message::from_vec(theirs) else { return self.code(ResponseCode::ServFail) };
        self.message.answers.extend(theirs.answers);
        self.message.authorities = theirs.authorities;
        self.message.metadata.authoritative = false;
        let code = theirs.metadata.response_code;
        self.code(code)
    }

    /// The reply's bytes, cut to what the client takes: first additional records go, then answers, and
    /// then it says so.
    #[must_use]
    pub fn encode(mut self) -> Vec<u8> {
        let fits = |m: &Message| m.to_vec().ok().filter(|b| b.len() <= usize::from(self.limit));
        if let Some(bytes) = fits(&self.message) {
            return bytes;
        }
        self.message.additionals.clear();
        if let Some(bytes) = fits(&self.message) {
            return bytes;
        }
        self.message.metadata.truncation = true;
        let answers: Vec<Record> = std::mem::take(&mut self.message.answers);
        let with = |n: usize| {
            let mut message = self.message.clone();
            message.answers = answers[..n].to_vec();
            fits(&message)
        };
        // The most answers that fit.
        let (mut low, mut high) = (0, answers.len());
        while low < high {
            let middle = (low + high).div_ceil(2);
            if with(middle).is_some() { low = middle } else { high = middle - 1 }
        }
        with(low).unwrap_or_default()
    }
}

fn our_edns() -> Edns {
    let mut edns = Edns::new();
    edns.set_max_payload(OUR_PAYLOAD);
    edns
}

#[cfg(test)]
mod tests {
    use super::super::zone::tests::{World, world, zone};
    use super::*;
    use crate::views::{EndpointView, ServiceView, SliceView};
    use proptest::prelude::*;
    use std::net::IpAddr;
    use std::sync::Arc;

    fn reply(bytes: &[u8], over: Over, records: &dyn Records) -> Option<Message> {
        let reply = match handle(bytes, over, &zone(), records, 0, false) {
            Step::Ignore => return None,
            Step::Reply(reply) | Step::Forward { unknown: reply } | Step::Follow { reply, .. } => reply,
        };
        Some(Message::from_vec(&reply.encode()).unwrap())
    }

    fn request(name: &str, kind: RecordType) -> Message {
        let mut message = Message::new(77, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
        message
    }

    fn ask(message: &Message, over: Over) -> Message {
        reply(&message.to_vec().unwrap(), over, &world()).unwrap()
    }

    #[test]
    fn the_question_comes_back_as_it_was_written() {
        let message = ask(&request("wEb.DEFAULT.svc.Cluster.local.", RecordType::A), Over::Udp);
        assert_eq!(message.metadata.id, 77);
        assert!(message.metadata.authoritative && message.metadata.recursion_desired);
        assert!(
            message.queries[0].name.eq_case(&Name::from_ascii("wEb.DEFAULT.svc.Cluster.local.").unwrap())
        );
        assert!(message.answers[0].name.eq_case(&message.queries[0].name));
        assert_eq!(message.answers[0].ttl, 30);
        assert!(message.edns.is_none());
    }

    #[test]
    fn what_does_not_exist_is_said_with_the_zones_authority() {
        for name in ["nope.default.svc.cluster.local.", "default.svc.cluster.local."] {
            let message = ask(&request(name, RecordType::A), Over::Udp);
            assert_eq!(message.authorities.len(), 1);
            assert_eq!(message.authorities[0].record_type(), RecordType::SOA);
        }
        let message = ask(&request("example.com.", RecordType::A), Over::Udp);
        assert_eq!(message.metadata.response_code, ResponseCode::Refused);
        let message = ask(&request("1.1.1.10.in-addr.arpa.", RecordType::PTR), Over::Udp);
        assert_eq!(message.metadata.response_code, ResponseCode::NXDomain);
    }

    #[test]
    fn odd_requests() {
        let mut message = request("web.default.svc.cluster.local.", RecordType::A);
        let mut edns = Edns::new();
        edns.set_version(1);
        message.set_edns(edns);
        assert_eq!(
            u16::from(ask(&message, Over::Udp).metadata.response_code),
            u16::from(ResponseCode::BADVERS)
        );
        let transfer = request("cluster.local.", RecordType::AXFR);
        assert_eq!(ask(&transfer, Over::Tcp).metadata.response_code, ResponseCode::Refused);
        let mut two = request("web.default.svc.cluster.local.", RecordType::A);
        two.add_query(two.queries[0].clone());
        assert_eq!(ask(&two, Over::Udp).metadata.response_code, ResponseCode::FormErr);
        let mut update = request("cluster.local.", RecordType::A);
        update.metadata.op_code = OpCode::Update;
        assert_eq!(ask(&update, Over::Udp).metadata.response_code, ResponseCode::NotImp);
        let mut response = request("cluster.local.", RecordType::A);
        response.metadata.message_type = MessageType::Response;
        assert!(reply(&response.to_vec().unwrap(), Over::Udp, &world()).is_none());
    }

    /// A headless Service with many endpoints.
    struct Many;

    impl Records for Many {
        fn namespace(&self, _: &str) -> bool {
            true
        }
        fn service(&self, _: &str, _: &str) -> Option<Arc<ServiceView>> {
            Some(Arc::new(ServiceView { headless: true, ..ServiceView::default() }))
        }
        fn slices(&self, _: &str, _: &str) -> Vec<Arc<SliceView>> {
            let endpoint = |i| EndpointView {
                addresses: vec![IpAddr::from([10, 1, 0, i])],
                ready: true,
                ..EndpointView::default()
            };
            vec![Arc::new(SliceView { endpoints: (0..100).map(endpoint).collect(), ..SliceView::default() })]
        }
        fn services_at(&self, _: IpAddr) -> Vec<Arc<ServiceView>> {
            vec![]
        }
        fn slices_with(&self, _: IpAddr) -> Vec<Arc<SliceView>> {
            vec![]
        }
    }

    #[test]
    fn long_answers_are_cut_over_udp_and_whole_over_tcp() {
        let mut message = request("db.default.svc.cluster.local.", RecordType::A);
        let short = reply(&message.to_vec().unwrap(), Over::Udp, &Many).unwrap();
        assert!(short.metadata.truncation && short.answers.len() > 20, "{}", short.answers.len());
        assert!(short.to_vec().unwrap().len() <= 512);
        let whole = reply(&message.to_vec().unwrap(), Over::Tcp, &Many).unwrap();
        assert!(!whole.metadata.truncation && whole.answers.len() == 100);
        let mut edns = Edns::new();
        edns.set_max_payload(4096);
        message.set_edns(edns);
        let large = reply(&message.to_vec().unwrap(), Over::Udp, &Many).unwrap();
        assert_eq!(
            (large.metadata.truncation, large.answers.len()),
            (false, 100),
            "{}",
            large.to_vec().unwrap().len()
        );
        assert_eq!(large.edns.unwrap().max_payload(), 1232);
    }

    fn mangled(records: &World, mut bytes: Vec<u8>, changes: &[(usize, u8)]) {
        for (at, value) in changes {
            let len = bytes.len();
            bytes[at % len] = *value;
        }
        if let Some(reply) = reply(&bytes, Over::Udp, records) {
            assert_eq!(reply.metadata.id.to_be_bytes(), [bytes[0], bytes[1]]);
        }
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            reply(&bytes, Over::Udp, &world());
            let _ = matches(&bytes, &bytes);
        }

        #[test]
        fn damaged_requests_never_panic(
            changes in proptest::collection::vec((any::<usize>(), any::<u8>()), 0..6),
            kind in any::<u16>(),
        ) {
            let mut message = request("_peer._tcp.db.default.svc.cluster.local.", RecordType::from(kind));
            message.set_edns(Edns::new());
            mangled(&world(), message.to_vec().unwrap(), &changes);
        }
    }
}
