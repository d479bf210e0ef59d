//! How exactly sessions end *T* after the last activity, and what that costs the provider: users who are active at random,
//! in virtual time.
//!
//! `accuracy rules USERS FOLDER` simulates the rules of DESIGN for each setting, prints a table and draws the plots.
//! `accuracy real USERS` lets as many users act on the crate itself, with the embedded provider, and compares every answer
//! and the number of signals with the rules.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::path::Path;
use std::time::{Duration, SystemTime};

use plotters::prelude::*;
use tower::{Layer, Service};
use tower_oidc_session::test_provider::{Endpoint, ExpiredSessions, ManualClock, SignIn, TestClient, TestProvider};
use tower_oidc_session::{ClientCredentials, Clock, MemoryRegistry, RelyingParty, SessionPolicy};
use tower_oidc_session_benches::contestants::{Look, PUBLIC_URL, page_of};
use tower_oidc_session_benches::figure::{self, quantile};
use tower_oidc_session_benches::random::Random;
use tower_oidc_session_benches::user::{request, sign_in};

/// Everything in seconds.
const T: f64 = 900.0;
const HOUR: f64 = 3600.0;
/// The provider is away for so long, once in so long.
const OUTAGE: f64 = 120.0;
const BETWEEN_OUTAGES: f64 = 1200.0;

/// How an application tells the provider that its user is active.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Signals {
    /// By refreshes or userinfo requests: with any request of the user.
    ByAnyRequest,
    /// By silent logins: with navigations, each third of the requests here.
    ByNavigations,
    /// Not at all.
    Never,
}

/// What is varied.
#[derive(Clone, Copy)]
struct Setting {
    g: f64,
    kinds: Kinds,
    back_channel_logout: bool,
    /// The provider is away for two minutes in each twenty.
    outages: bool,
}

/// What became of one user.
struct Fate {
    /// When nothing is served any more, later than *T* after the last activity.
    error: f64,
    signals: f64,
    lost_while_active: bool,
}

fn is_away(setting: Setting, now: f64) -> bool {
    setting.outages && now % BETWEEN_OUTAGES < OUTAGE
}

/// The applications of a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kinds {
    All(Signals),
    /// Each of another kind, the first by refreshes.
    Mixed,
}

/// One user of some applications, for an hour. Active is who acts, where that can be a signal, at least once in each *T* − *G*
/// after a signal, while the provider is there: nobody pauses for longer than that leaves.
fn simulate(setting: Setting, random: &mut Random) -> Fate {
    let applications = 1 + random.below(5);
    let kinds: Vec<Signals> = (0..applications)
        .map(|index| match setting.kinds {
            Kinds::All(signals) => signals,
            Kinds::Mixed if index == 0 => Signals::ByAnyRequest,
            Kinds::Mixed => [Signals::ByAnyRequest, Signals::ByNavigations, Signals::Never][random.below(3)],
        })
        .collect();
    // A request that falls into an outage is none that signals, so two have to fit.
    let longest = if setting.outages { (T - setting.g - OUTAGE) / 2.0 } else { T - setting.g };
    let mut now = random.next() * BETWEEN_OUTAGES;
    let begun = now;
    // The login at each application is a sign of life at the provider.
    let mut at_provider = now;
    let mut own = vec![now; applications];
    let mut last_possible = now;
    let mut signals = 0.0;
    let mut lost_while_active = false;
    let mut last_activity = now;
    while now - begun < HOUR {
        // Where not everything can be a signal, what can is not left out for too long.
        let part = if setting.kinds == Kinds::All(Signals::ByAnyRequest) { longest } else { longest / 2.0 };
        now += random.pause(part);
        let has_to_signal = now - last_possible > part;
        let application = if has_to_signal { 0 } else { random.below(applications) };
        let is_navigation = random.below(3) == 0 || has_to_signal;
        let since = now - own[application];
        let may_signal = match kinds[application] {
            Signals::ByAnyRequest => true,
            Signals::ByNavigations => is_navigation,
            Signals::Never => false,
        };
        if may_signal {
            last_possible = now;
        }
        // What the provider says to all, it says to this one, too.
        let is_over = setting.back_channel_logout && now >= at_provider + T && !is_away(setting, now);
        if kinds[application] == Signals::Never {
            lost_while_active |= is_over;
            own[application] = now;
        } else if since >= setting.g && may_signal {
            // Where nobody can be asked the answer is 503 at worst, and the session goes on after.
            if !is_away(setting, now) {
                lost_while_active |= now >= at_provider + T;
                (at_provider, own[application]) = (now, now);
                signals += 1.0;
            }
        }
        last_activity = now;
    }
    let last_own = own.iter().zip(&kinds).filter(|(_, kind)| **kind == Signals::Never).map(|(own, _)| own + T);
    let last_own = last_own.fold(0.0, f64::max);
    let provider_ends = at_provider + T;
    let ends = if setting.back_channel_logout { provider_ends } else { provider_ends.max(last_own) };
    let ends = if setting.kinds == Kinds::All(Signals::Never) {
        if setting.back_channel_logout { ends.min(last_own) } else { last_own }
    } else {
        ends
    };
    Fate { error: ends - (last_activity + T), signals: signals / ((now - begun) / HOUR), lost_while_active }
}

struct Summary {
    least: f64,
    median: f64,
    greatest: f64,
    signals: f64,
    lost: f64,
    errors: Vec<f64>,
}

fn summarize(setting: Setting, users: u64) -> Summary {
    let fates: Vec<Fate> = (0..users).map(|user| simulate(setting, &mut Random::of(user + 1))).collect();
    let mut errors: Vec<f64> = fates.iter().map(|fate| fate.error).collect();
    let count = users as f64;
    Summary {
        least: quantile(&mut errors, 0.0),
        median: quantile(&mut errors, 0.5),
        greatest: quantile(&mut errors, 1.0),
        signals: fates.iter().map(|fate| fate.signals).sum::<f64>() / count,
        lost: fates.iter().filter(|fate| fate.lost_while_active).count() as f64 / count,
        errors,
    }
}

fn rules(users: u64, folder: &Path) {
    println!("| signals | *G* | back-channel logout | outages | least | median | greatest | lost while active |");
    println!("|---|---|---|---|---|---|---|---|");
    for (kinds, name) in [
        (Kinds::All(Signals::ByAnyRequest), "refresh, userinfo"),
        (Kinds::All(Signals::ByNavigations), "silent login"),
        (Kinds::All(Signals::Never), "none"),
        (Kinds::Mixed, "one of each"),
    ] {
        for minutes in [1.0, 3.0, 5.0] {
            for back_channel_logout in [true, false] {
                for outages in [false, true] {
                    let setting = Setting { g: 60.0 * minutes, kinds, back_channel_logout, outages };
                    let Summary { least, median, greatest, lost, .. } = summarize(setting, users);
                    let word = |is: bool| if is { "yes" } else { "no" };
                    let (logout, away) = (word(back_channel_logout), word(outages));
                    println!(
                        "| {name} | {minutes} min | {logout} | {away} | {least:.0} s | {median:.0} s | {greatest:.0} s | {:.2} % |",
                        100.0 * lost
                    );
                }
            }
        }
    }
    let usual = |g| Setting { g, kinds: Kinds::All(Signals::ByAnyRequest), back_channel_logout: true, outages: false };
    draw_errors(&folder.join("accuracy.svg"), &[60.0, 180.0, 300.0].map(|g| (g, summarize(usual(g), users).errors)));
    let parts = [20.0, 15.0, 10.0, 8.0, 6.0, 5.0, 4.0, 3.0, 2.5, 2.0];
    let costs: Vec<(f64, f64, f64)> = parts
        .iter()
        .map(|part| {
            let summary = summarize(usual(T / part), users);
            println!(
                "T/{part}: {:.1} signals per user and hour, at most {:.0} s early",
                summary.signals, -summary.least
            );
            (summary.signals, -summary.least / T, *part)
        })
        .collect();
    draw_costs(&folder.join("signals.svg"), &costs);
}

fn draw_errors(path: &Path, errors: &[(f64, Vec<f64>)]) {
    let root = SVGBackend::new(path, (720, 360)).into_drawing_area();
    root.fill(&WHITE).expect("a file");
    let mut chart = ChartBuilder::on(&root)
        .caption("Local end − (last activity anywhere + T), T = 15 min", ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(52)
        .build_cartesian_2d(-300.0..20.0, 0.0..1.0)
        .expect("a chart");
    chart.configure_mesh().x_desc("seconds").y_desc("share of users").draw().expect("a mesh");
    for (index, (g, sorted)) in errors.iter().enumerate() {
        let color = Palette99::pick(index).stroke_width(2);
        let step = (sorted.len() / 500).max(1);
        let points = sorted.iter().enumerate().step_by(step);
        let points = points.map(|(rank, error)| (*error, rank as f64 / sorted.len() as f64));
        chart
            .draw_series(LineSeries::new(points, color))
            .expect("a line")
            .label(format!("G = {:.0} min", g / 60.0))
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], color));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE)
        .draw()
        .expect("a legend");
    root.present().expect("a file");
}

fn draw_costs(path: &Path, costs: &[(f64, f64, f64)]) {
    let root = SVGBackend::new(path, (720, 360)).into_drawing_area();
    root.fill(&WHITE).expect("a file");
    let most = costs.iter().map(|(signals, ..)| *signals).fold(0.0, f64::max) * 1.1;
    let mut chart = ChartBuilder::on(&root)
        .caption("What a smaller G costs, and what it gives", ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(52)
        .build_cartesian_2d(0.0..most, 0.0..0.6)
        .expect("a chart");
    chart
        .configure_mesh()
        .x_desc("signals per user and hour (T = 15 min)")
        .y_desc("earliest end, parts of T")
        .draw()
        .expect("a mesh");
    let color = Palette99::pick(0);
    let line = costs.iter().map(|(signals, early, _)| (*signals, *early));
    chart.draw_series(LineSeries::new(line, color.stroke_width(2))).expect("a line");
    for (signals, early, part) in costs {
        chart.draw_series([Circle::new((*signals, *early), 3, color.filled())]).expect("a point");
        let label = Text::new(format!("T/{part}"), (*signals + most / 90.0, *early + 0.02), ("sans-serif", 13));
        chart.draw_series([label]).expect("a word");
    }
    root.present().expect("a file");
}

/// Users of the crate itself, each of one application, at the same time.
async fn real(users: u64) {
    let seconds = Duration::from_secs_f64;
    let g = T / 5.0;
    let clock = ManualClock::new();
    let provider = TestProvider::builder()
        .clock(clock.clone())
        .sign_in(SignIn::Automatic("alice".to_owned()))
        .session_lifetime(seconds(T))
        .access_token_lifetime(seconds(T))
        .expired_sessions(ExpiredSessions::StaySilent)
        .start()
        .await
        .expect("the provider starts");
    provider.register(TestClient::at("shop", "secret", PUBLIC_URL));
    let rp = RelyingParty::builder(provider.issuer(), ClientCredentials::secret("shop", "secret"), PUBLIC_URL)
        .policy(SessionPolicy::new().op_session_lifetime(seconds(T)))
        .registry(MemoryRegistry::new())
        .clock(clock.clone())
        .build()
        .expect("the configuration is good");
    let mut app = rp.layer().layer(page_of(&rp, Look::Required));
    let mut cookies = Vec::new();
    for _ in 0..users {
        cookies.push(sign_in(&app, &provider).await.header());
    }
    // The login was at the time at which all begin: nothing has moved the clock.
    let begun = clock.now();
    let mut random: Vec<Random> = (0..users).map(|user| Random::of(user + 1)).collect();
    let millis = |at: f64| (at * 1000.0).round() as u64;
    let mut next: BinaryHeap<Reverse<(u64, usize)>> = BinaryHeap::new();
    // Some pauses are longer than T: those users come back to a session that is over.
    let longest = T * 1.3;
    for (user, random) in random.iter_mut().enumerate() {
        next.push(Reverse((millis(random.pause(longest)), user)));
    }
    let mut signalled = vec![0_u64; cookies.len()];
    let mut is_over = vec![false; cookies.len()];
    let (mut served, mut refused, mut signals) = (0_u64, 0_u64, 0_u64);
    let mut active = 0.0;
    let tokens_before = provider.requests(Endpoint::Token);
    while let Some(Reverse((at, user))) = next.pop().filter(|Reverse((at, _))| *at <= millis(HOUR)) {
        let due: SystemTime = begun + Duration::from_millis(at);
        clock.advance(due.duration_since(clock.now()).unwrap_or_default());
        let response = app.call(request("/page", &cookies[user])).await.expect("routers do not fail");
        let since = at - signalled[user];
        let expected = if is_over[user] || since >= millis(T) {
            is_over[user] = true;
            false
        } else {
            if since >= millis(g) {
                signalled[user] = at;
                signals += 1;
            }
            true
        };
        assert_eq!(response.status().is_success(), expected, "user {user}, {since} ms after the last signal");
        if expected {
            served += 1;
            let pause = random[user].pause(longest);
            active += pause;
            next.push(Reverse((at + millis(pause), user)));
        } else {
            refused += 1;
        }
    }
    let refreshes = provider.requests(Endpoint::Token) - tokens_before;
    // A refused refresh is a request, too.
    assert_eq!(refreshes, signals + refused, "token requests");
    figure::print("simulation: users", users as f64, "");
    figure::print("simulation: answers that are not as the rules say", 0.0, "");
    figure::print("simulation: requests served", served as f64, "");
    figure::print("simulation: sessions found over", refused as f64, "");
    figure::print("simulation: signals", signals as f64, "");
    figure::print("simulation: signals per user and hour of activity", signals as f64 / (active / HOUR), "");
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let users = arguments.get(1).and_then(|users| users.parse().ok()).expect("USERS");
    match (arguments[0].as_str(), arguments.get(2)) {
        ("rules", Some(folder)) => rules(users, Path::new(folder)),
        ("real", None) => real(users).await,
        _ => panic!("rules USERS FOLDER, or real USERS"),
    }
    std::process::exit(0);
}
