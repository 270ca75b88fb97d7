//! How many requests of one kind may be under way at a registry, and how fast new ones may follow. Pure: no clock, no waiting.
//!
//! Nothing is limited until a registry complains: a window that had to grow first would slow every registry that never
//! does. Then the window is half of what was under way, and grows by one with each window's worth of good answers, until it
//! is so large that it stops mattering. Requests carry numbers, and a complaint about a request that left before the last
//! cut is old news: so a burst of complaints cuts once.

use crate::clock::BootTime;
use std::time::Duration;

/// A window larger than this is none: no process has more requests of a kind under way.
const WIDE: f64 = 256.0;

/// What an answer says about the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::registry) enum Heard {
    /// The registry did what it was asked, or said why not.
    Good,
    /// Too many requests, or nobody there to take them.
    Congested,
    /// Nothing: the request was given up, or somebody else answered.
    Nothing,
}

/// Whether a request may leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entry {
    Open,
    /// When another one has come back.
    Full,
    /// After so long.
    Closed(Duration),
}

/// The state of one kind of request at one registry.
#[derive(Debug, Default)]
pub(super) struct Lane {
    /// None: no limit.
    window: Option<f64>,
    under_way: u32,
    /// The number of the next request.
    next: u64,
    /// The first request after the last cut.
    epoch: u64,
    /// The registry asked to be left alone until then.
    closed_until: BootTime,
    /// What it allows is nearly used up, until then.
    spared_until: BootTime,
}

impl Lane {
    /// Whether a request may leave at `now`; `counted`: it uses up what the registry allows.
    pub fn look(&self, now: BootTime, counted: bool) -> Entry {
        let until = if counted { self.closed_until.max(self.spared_until) } else { self.closed_until };
        if until > now {
            return Entry::Closed(until.since(now));
        }
        match self.window {
            Some(window) if f64::from(self.under_way) + 1.0 > window.max(1.0) => Entry::Full,
            _ => Entry::Open,
        }
    }

    /// A request leaves; its number.
    pub fn enter(&mut self) -> u64 {
        self.under_way += 1;
        self.next += 1;
        self.next - 1
    }

    /// The request with that number has come back.
    pub fn leave(&mut self, number: u64, heard: Heard) {
        let under_way = f64::from(self.under_way);
        self.under_way = self.under_way.saturating_sub(1);
        match (heard, self.window) {
            (Heard::Congested, window) if number >= self.epoch => {
                let used = window.map_or(under_way, |window| window.min(under_way));
                self.window = Some((used / 2.0).max(1.0));
                self.epoch = self.next;
            }
            // A window that is not used says nothing about what the registry would bear.
            (Heard::Good, Some(window)) if under_way * 2.0 >= window => {
                let wider = window + 1.0 / window;
                self.window = (wider <= WIDE).then_some(wider);
            }
            _ => {}
        }
    }

    /// No request leaves before `until`.
    pub fn close(&mut self, until: BootTime) {
        self.closed_until = self.closed_until.max(until);
    }

    /// No request that is counted leaves before `until`; the newest answer knows best.
    pub fn spare(&mut self, until: BootTime) {
        self.spared_until = until;
    }

    /// For logs.
    pub fn window(&self) -> Option<f64> {
        self.window
    }
}

/// At most so many requests in a time: a token bucket, kept as the time at which it will be full again.
///
/// Not a crate: this is all of it, and a crate's would run on a clock of its own, which no test of ours could move.
#[derive(Debug)]
pub(super) struct Bucket {
    /// Between two requests in the long run.
    interval: Duration,
    /// How far ahead of that a burst may be.
    burst: Duration,
    end: BootTime,
}

impl Bucket {
    /// At most `requests` in any stretch of `per`: a fifth of them may come at once, the rest follow evenly.
    pub fn new(requests: u32, per: Duration) -> Self {
        let requests = requests.max(1);
        let at_once = (requests / 5).max(1);
        let interval = per / (requests - at_once).max(1);
        Self { interval, burst: interval * (at_once - 1), end: BootTime::default() }
    }

    /// How long a request must wait at `now`; it is counted as sent then.
    pub fn take(&mut self, now: BootTime) -> Duration {
        let begin = self.end.0.max(now.0.saturating_sub(self.burst));
        self.end.0 = begin + self.interval;
        begin.saturating_sub(now.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(millis: u64) -> BootTime {
        BootTime(Duration::from_millis(millis))
    }

    /// Lets `count` requests leave.
    fn fill(lane: &mut Lane, count: usize) -> Vec<u64> {
        (0..count).map(|_| lane.enter()).collect()
    }

    #[test]
    fn nothing_is_limited_until_a_registry_complains() {
        let mut lane = Lane::default();
        let numbers = fill(&mut lane, 1_000);
        assert_eq!(lane.look(at(0), true), Entry::Open);
        for number in numbers {
            lane.leave(number, Heard::Good);
        }
        assert_eq!(lane.window(), None);
    }

    #[test]
    fn a_burst_of_complaints_cuts_once() {
        let mut lane = Lane::default();
        for number in fill(&mut lane, 16) {
            lane.leave(number, Heard::Congested);
        }
        assert_eq!(lane.window(), Some(8.0));
        let next = fill(&mut lane, 8);
        assert_eq!(lane.look(at(0), true), Entry::Full);
        for number in next {
            lane.leave(number, Heard::Congested);
        }
        assert_eq!(lane.window(), Some(4.0));
    }

    #[test]
    fn a_window_grows_by_one_a_round_and_ends_some_time() {
        let mut lane = Lane::default();
        for number in fill(&mut lane, 8) {
            lane.leave(number, Heard::Congested);
        }
        let mut rounds = 0;
        while let Some(window) = lane.window() {
            let mut numbers = Vec::new();
            while lane.look(at(0), true) == Entry::Open {
                numbers.push(lane.enter());
            }
            assert!(numbers.len() as f64 <= window);
            for number in numbers {
                lane.leave(number, Heard::Good);
            }
            let grown = lane.window().map_or(0.0, |wider| wider - window);
            assert!(grown <= 1.01, "{grown}");
            rounds += 1;
            assert!(rounds < 1_000, "the window must end");
        }
        assert!(rounds > 200, "{rounds}");
    }

    #[test]
    fn closing_holds_everybody_and_sparing_who_is_counted() {
        let mut lane = Lane::default();
        lane.close(at(1_000));
        lane.close(at(500));
        assert_eq!(lane.look(at(400), false), Entry::Closed(Duration::from_millis(600)));
        assert_eq!(lane.look(at(1_000), true), Entry::Open);
        lane.spare(at(5_000));
        assert_eq!(
            (lane.look(at(1_000), false), lane.look(at(4_000), true)),
            (Entry::Open, Entry::Closed(Duration::from_secs(1)))
        );
        lane.spare(at(0));
        assert_eq!(lane.look(at(4_000), true), Entry::Open);
    }

    proptest! {
        #[test]
        fn there_is_always_room_for_one_and_cuts_are_one_an_epoch(steps in prop::collection::vec((0_u8..4, 0_usize..40), 1..400)) {
            let mut lane = Lane::default();
            let mut out: Vec<u64> = Vec::new();
            let mut sent_at_cut = 0;
            for (step, pick) in steps {
                if step == 0 || out.is_empty() {
                    if lane.look(at(0), true) == Entry::Open {
                        out.push(lane.enter());
                    }
                    prop_assert!(!out.is_empty(), "an empty lane lets one through");
                    continue;
                }
                let number = out.swap_remove(pick % out.len());
                let before = lane.window();
                let heard = [Heard::Good, Heard::Congested, Heard::Nothing][usize::from(step - 1)];
                lane.leave(number, heard);
                let shrunk = match (before, lane.window()) {
                    (None, Some(_)) => true,
                    (Some(before), Some(after)) => after < before,
                    _ => false,
                };
                prop_assert!(lane.window().is_none_or(|window| (1.0..=WIDE).contains(&window)));
                if shrunk {
                    prop_assert!(heard == Heard::Congested && number >= sent_at_cut, "{} before {}", number, sent_at_cut);
                    sent_at_cut = lane.next;
                }
            }
        }

        #[test]
        fn no_stretch_of_time_sees_more_than_the_ceiling(
            requests in 1_u32..200,
            gaps in prop::collection::vec(0_u64..300, 1..400),
        ) {
            let per = Duration::from_secs(1);
            let mut bucket = Bucket::new(requests, per);
            let mut now = at(10_000);
            let mut sent: Vec<Duration> = Vec::new();
            for gap in gaps {
                now.0 += Duration::from_millis(if gap < 200 { 0 } else { gap });
                sent.push(now.0 + bucket.take(now));
            }
            for (index, begin) in sent.iter().enumerate() {
                let within = sent[index..].iter().take_while(|time| **time < *begin + per).count();
                // One more where the stretch begins just on a request: ceilings of one or two cannot be split.
                prop_assert!(within <= requests as usize + usize::from(requests < 5), "{} of {}", within, requests);
            }
        }
    }

    #[test]
    fn a_ceiling_is_nearly_used() {
        let mut bucket = Bucket::new(10, Duration::from_secs(1));
        let mut now = at(10_000);
        let mut passed = 0;
        while now < at(20_000) {
            now.0 += bucket.take(now);
            passed += 1;
        }
        assert!((80..=85).contains(&passed), "{passed}");
    }
}
