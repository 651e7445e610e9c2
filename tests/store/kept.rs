//! What is held, for how long, and within how many bytes.

use std::collections::BTreeMap;

use clustertracing::store::query::Query;
use clustertracing::store::{Instance, Store};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use opentelemetry_proto::tonic::trace::v1::Span;
use proptest::collection::vec;
use proptest::prelude::*;
use prost::Message;

use super::spans::{MILLISECOND, START, failed, id, lasting, request, sent, span, text};

const MIB: usize = 1024 * 1024;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_nanosecond(i128::from(START)).unwrap() + SignedDuration::from_secs(seconds)
}

fn store(store: &Store, spans: Vec<Span>) -> u64 {
    store.store_spans(&sent(spans), at(0)).unwrap()
}

/// The spans that the store gives of a trace.
fn spans_of(store: &Store, trace: u64) -> Vec<Span> {
    let data = store.trace(id(trace)).unwrap_or_default();
    data.resource_spans.into_iter().flat_map(|resource| resource.scope_spans).flat_map(|scope| scope.spans).collect()
}

/// Two spans of some 600 bytes in all, in one batch.
fn ordinary(trace: u64) -> Vec<Span> {
    let padded = |mut span: Span| {
        span.attributes.push(text("padding", &"x".repeat(200)));
        span
    };
    vec![padded(span(trace, 1)), padded(span(trace, 0))]
}

fn all() -> Query {
    Query { limit: 1_000_000, ..Query::default() }
}

#[test]
fn a_trace_comes_back_as_it_was_sent_from_whatever_senders() {
    let held = Store::new(8 * MIB);
    let api = request("apiserver", "apiserver-abc", vec![span(7, 0), span(7, 2)]);
    let etcd = request("etcd", "cp-0", vec![span(7, 1)]);
    held.store_spans(&etcd.encode_to_vec(), at(1)).unwrap();
    held.store_spans(&api.encode_to_vec(), at(2)).unwrap();
    let data = held.trace(id(7)).unwrap();
    let sent: Vec<_> = [etcd, api].into_iter().flat_map(|request| request.resource_spans).collect();
    assert_eq!(data.resource_spans.len(), 2);
    for resource in &sent {
        assert!(data.resource_spans.iter().any(|found| found.resource == resource.resource && found.scope_spans == resource.scope_spans));
    }
    let instance = |service: &str, id: &str| Instance { service: service.into(), id: id.into() };
    let (api, etcd) = (instance("apiserver", "apiserver-abc"), instance("etcd", "cp-0"));
    assert_eq!(held.instances_of(id(7)), [api.clone(), etcd.clone()].into());
    assert_eq!(held.instances(), BTreeMap::from([(api, at(2)), (etcd, at(1))]));
    assert_eq!(held.trace(id(8)), None);
}

#[test]
fn bytes_never_exceed_the_limit_and_every_span_is_accounted_for() {
    for limit in [2 * MIB, 8 * MIB, 20 * MIB] {
        let held = Store::new(limit);
        let mut most = 0;
        // Small and large ones, ordinary, slow and failed, for several times the limit.
        for n in 0..60_000 {
            let mut spans = if n % 3 == 0 { ordinary(n) } else { vec![span(n, 0)] };
            if n % 7 == 0 {
                spans = spans.into_iter().map(failed).collect();
            }
            if n % 1000 == 0 {
                spans[0].attributes.push(text("object", &"y".repeat(50_000)));
            }
            store(&held, spans);
            let stats = held.stats();
            most = most.max(stats.held.bytes);
            let gone = stats.counters.evicted_spans + stats.held.spans;
            assert_eq!(gone, stats.counters.accepted_spans, "trace {n}");
        }
        let stats = held.stats();
        assert!(most <= limit, "{most} of {limit}");
        assert!(most > limit / 2, "{most} of {limit}");
        assert!(stats.counters.evicted_traces > 1000 && stats.held.kept_traces > 10, "{stats:?}");
        let listed = held.traces(&all()).traces;
        assert_eq!(listed.len(), stats.held.traces);
        assert_eq!(listed.iter().map(|trace| trace.spans as u64).sum::<u64>(), stats.held.spans);
        assert!(listed.iter().all(|trace| trace.complete), "traces go as a whole");
    }
}

#[test]
fn failed_and_slow_traces_outlive_ordinary_ones() {
    let held = Store::new(8 * MIB);
    store(&held, ordinary(0));
    store(&held, ordinary(1).into_iter().map(failed).collect());
    store(&held, ordinary(2).into_iter().map(|span| lasting(span, 1500 * MILLISECOND)).collect());
    // A watch ends after minutes, as it should.
    store(&held, ordinary(3).into_iter().map(|span| lasting(span, 300_000 * MILLISECOND)).collect());
    for n in 100..100_000 {
        store(&held, ordinary(n));
    }
    assert_eq!([0, 1, 2, 3].map(|trace| spans_of(&held, trace).len()), [0, 2, 2, 0]);
    assert_eq!(held.stats().held.kept_traces, 2);
}

#[test]
fn a_burst_of_failures_pushes_out_older_failures_and_not_what_goes_on_now() {
    let held = Store::new(8 * MIB);
    for n in 0..50_000 {
        store(&held, ordinary(n).into_iter().map(failed).collect());
    }
    let stats = held.stats().held;
    assert!(stats.kept_traces * 3 < stats.traces * 2, "{stats:?}");
    for n in 50_000..51_000 {
        store(&held, ordinary(n));
    }
    assert!((50_000..51_000).all(|trace| spans_of(&held, trace).len() == 2), "the latest thousand are all there");
}

#[test]
fn late_spans_join_their_trace_wherever_it_is() {
    let held = Store::new(8 * MIB);
    store(&held, vec![failed(span(1, 1))]);
    store(&held, vec![span(1, 0)]);
    for n in 100..100_000 {
        store(&held, ordinary(n));
    }
    assert_eq!(held.stats().held.kept_traces, 1);
    store(&held, vec![span(1, 2)]);
    assert_eq!(spans_of(&held, 1).len(), 3);
    let listed = held.traces(&Query { errors: true, ..all() }).traces;
    assert_eq!(
        listed.iter().map(|trace| (trace.trace_id.clone(), trace.spans, trace.complete)).collect::<Vec<_>>(),
        [(id(1).to_string(), 3, true)]
    );
}

#[test]
fn a_span_that_fails_late_keeps_what_came_before_it() {
    let held = Store::new(8 * MIB);
    store(&held, vec![span(1, 0)]);
    store(&held, vec![failed(span(1, 1))]);
    for n in 100..100_000 {
        store(&held, ordinary(n));
    }
    assert_eq!(spans_of(&held, 1).len(), 2);
}

#[test]
fn what_belongs_to_no_trace_or_is_too_large_is_rejected_and_counted() {
    let held = Store::new(8 * MIB);
    let without_id = Span { trace_id: Vec::new(), ..span(1, 0) };
    let zero_id = Span { trace_id: vec![0; 16], ..span(1, 0) };
    let mut large = span(1, 0);
    large.attributes.push(text("object", &"y".repeat(70_000)));
    assert_eq!(store(&held, vec![without_id, span(2, 0), zero_id, large]), 3);
    let counters = held.stats().counters;
    assert_eq!((counters.accepted_spans, counters.rejected_spans, held.stats().held.traces), (1, 3, 1));
}

#[test]
fn one_trace_without_an_end_takes_its_share_and_no_more() {
    let held = Store::new(8 * MIB);
    store(&held, (100..200).flat_map(ordinary).collect());
    let mut rejected = 0;
    for n in 0..20_000 {
        rejected += store(&held, vec![failed(span(1, n))]);
    }
    assert!(rejected > 10_000, "{rejected}");
    assert!((100..200).all(|trace| spans_of(&held, trace).len() == 2));
}

#[test]
fn malformed_requests_leave_nothing_behind() {
    let held = Store::new(8 * MIB);
    let mut bytes = sent(vec![span(1, 0)]);
    bytes.push(0x0a);
    assert!(held.store_spans(&bytes, at(0)).is_err());
    assert_eq!((held.stats().held.spans, held.instances().len()), (0, 0));
}

#[test]
fn instances_beyond_a_number_are_not_remembered_until_others_fall_silent() {
    let held = Store::new(8 * MIB);
    let from = |instance: &str, seconds: i64| {
        held.store_spans(&request("apiserver", instance, vec![span(1, 0)]).encode_to_vec(), at(seconds)).unwrap();
    };
    for n in 0..256 {
        from(&format!("garbage-{n}"), n);
    }
    from("real", 300);
    assert_eq!((held.instances().len(), held.stats().counters.rejected_instances), (256, 1));
    from("garbage-0", 900);
    from("real", 1200);
    let instances = held.instances();
    assert!(instances.keys().any(|instance| instance.id == "real") && instances.keys().any(|instance| instance.id == "garbage-0"));
    assert_eq!(instances.len(), 2);
}

#[test]
fn a_list_has_what_was_asked_for_the_latest_first() {
    let held = Store::new(8 * MIB);
    store(&held, vec![span(1, 0), span(1, 1)]);
    store(&held, vec![failed(lasting(span(2, 0), 700 * MILLISECOND))]);
    held.store_spans(&request("etcd", "cp-0", vec![span(3, 1), span(3, 2)]).encode_to_vec(), at(0)).unwrap();
    held.store_spans(&request("etcd", "cp-0", vec![Span { parent_span_id: vec![9; 8], ..span(4, 1) }, span(4, 2)]).encode_to_vec(), at(0))
        .unwrap();
    let ids = |query: Query| -> Vec<_> { held.traces(&query).traces.into_iter().map(|trace| trace.trace_id).collect() };
    let expected = |traces: &[u64]| traces.iter().map(|trace| id(*trace).to_string()).collect::<Vec<_>>();
    let began = |milliseconds: u64| Some(Timestamp::from_nanosecond(i128::from(START + milliseconds * MILLISECOND)).unwrap());
    let cases = [
        (all(), &[4, 3, 2, 1][..]),
        (Query { since: began(3), ..all() }, &[4, 3]),
        (Query { min_duration: SignedDuration::from_millis(100), ..all() }, &[2]),
        (Query { errors: true, ..all() }, &[2]),
        (Query { service: Some("etcd".into()), ..all() }, &[4, 3]),
        (Query { name: Some("/pods".into()), ..all() }, &[2, 1]),
        (Query { limit: 2, ..Query::default() }, &[4, 3]),
    ];
    for (query, traces) in cases {
        assert_eq!(ids(query.clone()), expected(traces), "{query:?}");
    }
    let complete = |number: usize| held.traces(&all()).traces[number].complete;
    assert_eq!([0, 1, 2, 3].map(complete), [false, true, true, true], "of trace 4 two parents are missing, of 3 one: its caller");
    assert!(held.traces(&Query { limit: 2, ..Query::default() }).more && !held.traces(&all()).more);
}

/// One batch: for each span, which of few traces it is of, how large it is, and whether it failed.
fn batches() -> impl Strategy<Value = Vec<Vec<(u64, usize, bool)>>> {
    vec(vec((0..200_u64, prop_oneof![3 => 0..600_usize, 1 => 0..60_000_usize], prop::bool::weighted(0.1)), 1..40), 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn of_any_trace_the_store_holds_the_latest_spans_without_a_gap(batches in batches()) {
        let held = Store::new(3 * MIB);
        let mut sent_so_far: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
        for (number, batch) in (0..).zip(batches) {
            let spans = batch.iter().zip(1..).map(|((trace, size, fails), n)| {
                let number = number * 100 + n;
                sent_so_far.entry(*trace).or_default().push(number);
                let mut span = Span { start_time_unix_nano: number, end_time_unix_nano: number, ..span(*trace, number) };
                span.attributes.push(text("padding", &"z".repeat(*size)));
                if *fails { failed(span) } else { span }
            });
            prop_assert_eq!(store(&held, spans.collect()), 0);
            prop_assert!(held.stats().held.bytes <= 3 * MIB);
        }
        let mut total = 0;
        for (trace, sent) in sent_so_far {
            let found: Vec<_> = spans_of(&held, trace).iter().map(|span| span.start_time_unix_nano).collect();
            prop_assert!(sent.ends_with(&found), "of {sent:?} only {found:?}");
            total += found.len() as u64;
        }
        prop_assert_eq!(total, held.stats().held.spans);
    }
}
