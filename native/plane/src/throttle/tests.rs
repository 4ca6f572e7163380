//! Rates, bursts, debts, changes and lines over a simulated clock: nothing here sleeps.

use super::*;
use std::sync::atomic::AtomicUsize;

const MIB: u64 = 1 << 20;

#[derive(Default)]
struct Bell(AtomicUsize);

impl Wake for Bell {
    fn wake(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Bell {
    fn rings(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

fn rate(average: f64) -> Rate {
    Rate {
        average,
        ..Rate::default()
    }
}

fn burst(average: f64, burst: f64, burst_seconds: f64) -> Rate {
    Rate {
        average,
        burst,
        burst_seconds,
    }
}

fn read(bytes: u64) -> Cost {
    Cost {
        direction: Direction::Read,
        bytes,
    }
}

fn write(bytes: u64) -> Cost {
    Cost {
        direction: Direction::Write,
        bytes,
    }
}

fn limited(limits: SpeedLimits) -> Throttle {
    let throttle = Throttle::default();
    throttle.set(limits);
    throttle
}

/// A client that always has the next request ready: when each of its requests began, in seconds, until the time is over.
fn begins(throttle: &Throttle, cost: Cost, start: Instant, seconds: f64) -> Vec<f64> {
    let (mut begun, mut at) = (Vec::new(), 0.0);
    while at < seconds {
        let now = start + Duration::from_secs_f64(at);
        if throttle.try_pass(cost, now) {
            begun.push(at);
            continue;
        }
        let place = throttle.join(cost, Arc::new(Bell::default()));
        match place.turn(now) {
            Turn::Pass => begun.push(at),
            Turn::Wait(Some(wait)) => at += wait.as_secs_f64(),
            Turn::Wait(None) => panic!("nobody else is in line"),
        }
    }
    begun
}

fn per_second(count: usize, seconds: f64) -> f64 {
    count as f64 / seconds
}

#[track_caller]
fn assert_near(found: f64, wanted: f64, part: f64) {
    assert!(
        (found - wanted).abs() <= wanted * part,
        "{found} is not within {part} of {wanted}"
    );
}

#[test]
fn operations_come_at_the_average_rate() {
    for average in [1.0, 7.0, 100.0, 5000.0, 250_000.0] {
        let throttle = limited(SpeedLimits {
            total_ops: rate(average),
            ..SpeedLimits::default()
        });
        let seconds = 10.0 + 10.0 / average;
        let begun = begins(&throttle, read(4096), Instant::now(), seconds);
        // A tenth of a second's worth, and the first one, come at once.
        assert_near(
            per_second(begun.len(), seconds),
            average,
            0.02 + 2.0 / (average * 10.0),
        );
    }
}

#[test]
fn bytes_come_at_the_average_rate_whatever_the_requests_size() {
    for bytes in [512, 4096, 65_536, MIB] {
        let throttle = limited(SpeedLimits {
            write_bytes: rate(20.0 * MIB as f64),
            ..SpeedLimits::default()
        });
        let begun = begins(&throttle, write(bytes), Instant::now(), 10.0);
        let moved = begun.len() as u64 * bytes;
        assert_near(moved as f64 / 10.0, 20.0 * MIB as f64, 0.02);
    }
}

#[test]
fn after_the_first_tenth_of_a_second_requests_are_spread_evenly() {
    let throttle = limited(SpeedLimits {
        total_ops: rate(100.0),
        ..SpeedLimits::default()
    });
    let begun = begins(&throttle, read(0), Instant::now(), 3.0);
    for pair in begun.windows(2).skip(12) {
        assert_near(pair[1] - pair[0], 0.01, 0.001);
    }
}

#[test]
fn an_idle_volume_saves_up_a_tenth_of_a_second_and_no_more() {
    let throttle = limited(SpeedLimits {
        total_ops: rate(1000.0),
        ..SpeedLimits::default()
    });
    let start = Instant::now();
    assert_near(
        begins(&throttle, read(0), start, 1.0).len() as f64,
        1100.0,
        0.01,
    );
    let later = start + Duration::from_secs(1000);
    assert_near(
        begins(&throttle, read(0), later, 1.0).len() as f64,
        1100.0,
        0.01,
    );
}

#[test]
fn a_burst_lasts_as_long_as_its_bucket_and_then_the_average_holds() {
    // 100/s, for up to 4 s 1000/s: the bucket of 4000 fills by 900 a second.
    let throttle = limited(SpeedLimits {
        total_ops: burst(100.0, 1000.0, 4.0),
        ..SpeedLimits::default()
    });
    let begun = begins(&throttle, read(0), Instant::now(), 60.0);
    let count = |from: f64, to: f64| begun.iter().filter(|at| (from..to).contains(*at)).count();
    for second in 1..4 {
        let from = f64::from(second);
        assert_near(count(from, from + 1.0) as f64, 1000.0, 0.01);
    }
    assert_near(count(10.0, 60.0) as f64, 5000.0, 0.01);
    assert_near(begun.len() as f64, 4000.0 + 6000.0, 0.01);
}

#[test]
fn a_burst_of_one_second_comes_as_fast_as_it_can() {
    let throttle = limited(SpeedLimits {
        total_ops: burst(10.0, 500.0, 1.0),
        ..SpeedLimits::default()
    });
    let begun = begins(&throttle, read(0), Instant::now(), 5.0);
    let at_once = begun.iter().filter(|at| **at == 0.0).count();
    assert_near(at_once as f64, 500.0, 0.01);
    assert_near(begun.len() as f64, 550.0, 0.01);
}

#[test]
fn a_request_larger_than_any_burst_goes_through_and_leaves_a_debt() {
    let throttle = limited(SpeedLimits {
        write_bytes: burst(MIB as f64, 2.0 * MIB as f64, 1.0),
        ..SpeedLimits::default()
    });
    let start = Instant::now();
    assert!(throttle.try_pass(write(32 * MIB), start));
    assert!(!throttle.try_pass(write(1), start + Duration::from_secs_f64(29.9)));
    assert!(throttle.try_pass(write(1), start + Duration::from_secs_f64(30.1)));
}

#[test]
fn directions_are_counted_apart_and_the_total_over_both() {
    let throttle = limited(SpeedLimits {
        read_ops: rate(10.0),
        ..SpeedLimits::default()
    });
    let start = Instant::now();
    begins(&throttle, read(0), start, 0.01);
    assert!(!throttle.try_pass(read(0), start));
    for _ in 0..1000 {
        assert!(throttle.try_pass(write(MIB), start));
    }
    throttle.set(SpeedLimits {
        total_ops: rate(10.0),
        ..SpeedLimits::default()
    });
    begins(&throttle, write(0), start, 0.01);
    assert!(!throttle.try_pass(read(0), start));
}

#[test]
fn the_strictest_limit_holds() {
    let throttle = limited(SpeedLimits {
        total_ops: rate(1000.0),
        read_bytes: rate(100.0 * 4096.0),
        ..SpeedLimits::default()
    });
    let begun = begins(&throttle, read(4096), Instant::now(), 10.0);
    assert_near(per_second(begun.len(), 10.0), 100.0, 0.02);
    let begun = begins(
        &throttle,
        read(1),
        Instant::now() + Duration::from_secs(60),
        10.0,
    );
    assert_near(per_second(begun.len(), 10.0), 1000.0, 0.02);
}

#[test]
fn connections_share_the_rate_and_take_turns() {
    const CLIENTS: usize = 50;
    let throttle = limited(SpeedLimits {
        total_ops: rate(1000.0),
        ..SpeedLimits::default()
    });
    let start = Instant::now();
    let bells: Vec<Arc<Bell>> = (0..CLIENTS).map(|_| Arc::default()).collect();
    let join = |client: usize| throttle.join(read(0), Arc::clone(&bells[client]) as Arc<dyn Wake>);
    let mut places: Vec<Option<Place>> = (0..CLIENTS).map(|client| Some(join(client))).collect();
    let mut served = [0_usize; CLIENTS];
    let mut now = start;
    while now < start + Duration::from_secs(5) {
        let mut next = None;
        for (client, place) in places.iter_mut().enumerate() {
            match place.as_ref().map(|place| place.turn(now)) {
                Some(Turn::Pass) => {
                    served[client] += 1;
                    *place = None;
                    *place = Some(join(client));
                }
                Some(Turn::Wait(Some(wait))) => next = Some(wait),
                _ => {}
            }
        }
        now += next.unwrap_or_default();
    }
    assert_near(served.iter().sum::<usize>() as f64, 5100.0, 0.02);
    let (least, most) = (served.iter().min().unwrap(), served.iter().max().unwrap());
    assert!(
        most - least <= 3,
        "between {least} and {most} requests each"
    );
}

#[test]
fn only_the_next_in_line_is_woken_when_a_place_is_left() {
    let throttle = limited(SpeedLimits {
        write_ops: rate(1.0),
        ..SpeedLimits::default()
    });
    let now = Instant::now();
    assert!(throttle.try_pass(write(0), now));
    let bells: [Arc<Bell>; 3] = Default::default();
    let [first, second, third] = bells
        .clone()
        .map(|bell| throttle.join(write(0), bell as Arc<dyn Wake>));
    assert!(matches!(first.turn(now), Turn::Wait(Some(_))));
    assert_eq!(second.turn(now), Turn::Wait(None));
    assert!(
        !throttle.try_pass(write(0), now + Duration::from_secs(9)),
        "jumped the line"
    );
    // A connection that hung up while it waited for a debt of others.
    drop(first);
    assert_eq!([0, 1, 2].map(|at: usize| bells[at].rings()), [0, 1, 0]);
    assert_eq!(second.turn(now + Duration::from_secs(9)), Turn::Pass);
    drop(second);
    assert_eq!([0, 1, 2].map(|at: usize| bells[at].rings()), [0, 1, 1]);
    drop(third);
    assert!(throttle.try_pass(write(0), now + Duration::from_secs(19)));
}

#[test]
fn a_reader_in_line_does_not_hold_up_a_writer() {
    let throttle = limited(SpeedLimits {
        read_ops: rate(1.0),
        ..SpeedLimits::default()
    });
    let now = Instant::now();
    assert!(throttle.try_pass(read(0), now));
    let waiting = throttle.join(read(0), Arc::new(Bell::default()));
    assert!(matches!(waiting.turn(now), Turn::Wait(Some(_))));
    assert!(throttle.try_pass(write(0), now));
}

#[test]
fn a_change_wakes_everybody_and_forgets_the_debt_of_what_changed() {
    let throttle = limited(SpeedLimits {
        write_bytes: rate(1.0),
        write_ops: rate(1.0),
        ..SpeedLimits::default()
    });
    let now = Instant::now();
    assert!(throttle.try_pass(write(1 << 30), now));
    let bells: [Arc<Bell>; 2] = Default::default();
    let [first, second] = bells
        .clone()
        .map(|bell| throttle.join(write(1), bell as Arc<dyn Wake>));
    let Turn::Wait(Some(wait)) = first.turn(now) else {
        panic!("the debt is waited for")
    };
    assert_eq!(wait, Duration::from_secs(3600));
    // The rate of operations stays, and so does what was used of it.
    throttle.set(SpeedLimits {
        write_bytes: rate(1e6),
        write_ops: rate(1.0),
        ..SpeedLimits::default()
    });
    assert_eq!([bells[0].rings(), bells[1].rings()], [1, 1]);
    let Turn::Wait(Some(wait)) = first.turn(now) else {
        panic!("one operation was used")
    };
    assert_near(wait.as_secs_f64(), 0.9, 0.001);
    throttle.set(SpeedLimits::default());
    assert!(!throttle.is_limited());
    assert_eq!(
        [first.turn(now), second.turn(now)],
        [Turn::Pass, Turn::Pass]
    );
}

#[test]
fn the_same_limits_again_give_no_second_burst() {
    let limits = SpeedLimits {
        total_ops: burst(1.0, 100.0, 1.0),
        ..SpeedLimits::default()
    };
    let throttle = limited(limits);
    let start = Instant::now();
    assert!(begins(&throttle, read(0), start, 0.5).len() > 99);
    throttle.set(limits);
    assert!(!throttle.try_pass(read(0), start + Duration::from_secs_f64(0.5)));
}

#[test]
fn a_thread_with_an_older_clock_neither_leaks_nor_turns_time_back() {
    let throttle = limited(SpeedLimits {
        total_ops: rate(1000.0),
        ..SpeedLimits::default()
    });
    let start = Instant::now();
    let mut passed = 0;
    for turn in 0..10_000 {
        // Two threads, one always 5 ms behind.
        let behind = if turn % 2 == 0 { 0 } else { 5 };
        let now = start + Duration::from_millis(10 + turn / 10 - behind);
        passed += u64::from(throttle.try_pass(read(0), now));
    }
    assert_near(passed as f64, 1100.0, 0.02);
}
