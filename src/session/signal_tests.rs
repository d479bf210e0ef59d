use http::StatusCode;

use super::*;
use crate::protocol::token_response::ErrorCode;
use crate::session::end_reason::EndMark;
use crate::session::record::samples;

const NOW: SystemTime = SystemTime::UNIX_EPOCH;
const SECOND: Duration = Duration::from_secs(1);

/// Answers are given at `after` seconds.
fn with_terms<T>(after: u64, work: impl FnOnce(&Terms<'_>) -> T) -> T {
    let policy = SessionPolicy::new();
    work(&Terms {
        policy: &policy,
        signing_alg: SigningAlg::RS256,
        clock_tolerance: SECOND * 30,
        ambiguity: Ambiguity::Single,
        claim_patience: SECOND * 10,
        now: NOW + SECOND * u32::try_from(after).unwrap(),
    })
}

fn record(signal: ActivitySignal) -> Arc<SessionRecord> {
    let mut record = samples::record();
    let mut login = (*record.login).clone();
    login.signal = signal;
    record.login = Arc::new(login);
    Arc::new(record)
}

fn newer() -> Arc<SessionRecord> {
    let mut record = samples::record();
    record.version = record.version.next();
    Arc::new(record)
}

fn audience() -> Audience {
    Audience { resource: Some("billing".to_owned()), ..Audience::default() }
}

/// The name of what is to be done, with what matters of it.
fn name(wanted: &Do) -> String {
    match wanted {
        Do::AskUserInfo(_) => "ask userinfo".to_owned(),
        Do::Claim(_) => "claim".to_owned(),
        Do::Commit(_) => "commit".to_owned(),
        Do::Done(Outcome::Confirmed(record)) => format!("confirmed {}", record.version().number()),
        Do::Done(Outcome::Denied(_)) => "denied".to_owned(),
        Do::Done(Outcome::Ended(reason)) => format!("ended {reason:?}"),
        Do::Done(Outcome::Overtaken(record)) => format!("overtaken {}", record.version().number()),
        Do::Done(Outcome::Unavailable(retry_after)) => format!("unavailable {retry_after:?}"),
        Do::End(end) => format!("end {} {:?}", end.reason, end.discard.is_some()),
        Do::Load(_) => "load".to_owned(),
        Do::Present(_) => "present".to_owned(),
        Do::Release(release) => format!("release, then {}", name(&release.clone().next())),
        Do::Verify(_) => "verify".to_owned(),
        Do::Wait(wait) => format!("wait {:?}, then {}", wait.pause, name(&wait.clone().next())),
    }
}

fn begin(signal: ActivitySignal, audience: Option<Audience>) -> Do {
    with_terms(0, |terms| start(record(signal), audience, terms))
}

fn claim() -> Claim {
    let Do::Claim(claim) = begin(ActivitySignal::Refresh, None) else { panic!("no claim") };
    claim
}

fn present(audience: Option<Audience>) -> Present {
    let Do::Claim(claim) = begin(ActivitySignal::Refresh, audience) else { panic!("no claim") };
    let Do::Present(present) = claim.next(Ok(Claimed::Granted)) else { panic!("not presented") };
    present
}

/// The same after a first answer that was lost.
fn present_again(audience: Option<Audience>) -> Present {
    present_after(Presented::Lost, audience)
}

/// The same after a first answer that left it open.
fn present_after(first: Presented, audience: Option<Audience>) -> Present {
    let Do::Load(load) = with_terms(0, |terms| present(audience).next(first, NOW, terms)) else { panic!("no look") };
    let Do::Wait(wait) = load.next(Ok(Loaded::Live(record(ActivitySignal::Refresh)))) else { panic!("no wait") };
    let Do::Present(present) = wait.next() else { panic!("not presented") };
    present
}

fn granted(refresh_token: Option<&str>) -> Presented {
    Presented::Answered(TokenVerdict::Granted(TokenResponse {
        access_token: AccessToken::new("new access"),
        expires_in: Some(SECOND * 60),
        refresh_expires_in: None,
        refresh_token: refresh_token.map(RefreshToken::new),
        id_token: None,
        scope: None,
    }))
}

fn commit() -> Commit {
    let Do::Commit(commit) = with_terms(1, |terms| present(None).next(granted(Some("new refresh")), NOW, terms)) else {
        panic!("no commit")
    };
    commit
}

#[test]
fn how_a_signal_begins() {
    for (signal, expected) in [
        (ActivitySignal::None, "commit"),
        (ActivitySignal::Refresh, "claim"),
        (ActivitySignal::SilentLogin, "unavailable None"),
        (ActivitySignal::UserInfo, "claim"),
    ] {
        assert_eq!(name(&begin(signal, None)), expected, "{signal:?}");
    }
}

#[test]
fn p2_who_waits_for_another_looks_soon_and_then_less_often() {
    let mut claim = claim();
    let mut looks = Vec::new();
    let mut waited = Duration::ZERO;
    while waited < Duration::from_secs(5) {
        let Do::Wait(wait) = claim.next(Ok(Claimed::Held)) else { panic!("no wait") };
        let Pause::Of(pause) = wait.pause else { panic!("no pause") };
        // What comes after any time is noticed a fifth of that late, and a moment.
        assert!(pause <= waited / 5 * 2 + Duration::from_millis(2) && pause <= Duration::from_millis(50), "{pause:?}");
        waited += pause;
        looks.push(pause);
        let Do::Claim(next) = wait.next() else { panic!("no claim") };
        claim = next;
    }
    assert!(looks.len() < 120, "a provider that hangs: {} looks", looks.len());
}

#[test]
fn p2_claims() {
    let ended = EndReason::BackChannelLogout;
    for (answer, expected) in [
        (Ok(Claimed::Granted), "present"),
        (Ok(Claimed::Held), "wait Of(2ms), then claim"),
        (Ok(Claimed::Changed(newer())), "overtaken 2"),
        (Ok(Claimed::Gone(Some(ended))), "ended Some(BackChannelLogout)"),
        (Ok(Claimed::Gone(None)), "ended None"),
        (Err(StoreFailed), "release, then unavailable None"),
    ] {
        assert_eq!(name(&claim().next(answer.clone())), expected, "{answer:?}");
    }
    let Do::Claim(claim) = begin(ActivitySignal::UserInfo, None) else { panic!("no claim") };
    assert_eq!(name(&claim.next(Ok(Claimed::Granted))), "ask userinfo");
}

#[test]
fn p4_what_the_token_endpoints_answer_leads_to() {
    let code = |code: &str| ErrorCode::new(code);
    let unavailable = |retry_after| {
        Presented::Answered(TokenVerdict::Unavailable { status: StatusCode::SERVICE_UNAVAILABLE, retry_after })
    };
    let refused = |error: &str| Presented::Answered(TokenVerdict::Refused(code(error)));
    let ambiguous = |error: &str| Presented::Answered(TokenVerdict::Ambiguous(code(error)));
    let not_for_this = |error: &str| Presented::Answered(TokenVerdict::NotForThis(code(error)));
    for (answer, audience, first, second) in [
        (granted(None), None, "commit", "commit"),
        (granted(None), Some(audience()), "commit", "commit"),
        (refused("invalid_grant"), None, "load", "load"),
        // Whether it is the session or the audience, a plain refresh tells.
        (refused("invalid_grant"), Some(audience()), "present", "present"),
        (refused("consent_required"), None, "load", "load"),
        (ambiguous("invalid_request"), None, "load", "release, then unavailable None"),
        (ambiguous("invalid_scope"), Some(audience()), "release, then denied", "release, then denied"),
        (not_for_this("invalid_target"), Some(audience()), "release, then denied", "release, then denied"),
        (not_for_this("access_denied"), None, "release, then unavailable None", "release, then unavailable None"),
        (Presented::Answered(TokenVerdict::Unreadable), None, "load", "release, then unavailable None"),
        (Presented::Lost, None, "load", "release, then unavailable None"),
        (Presented::NoAnswer, None, "release, then unavailable None", "release, then unavailable None"),
        (Presented::NotSent(None), None, "release, then unavailable None", "release, then unavailable None"),
        (unavailable(Some(SECOND)), None, "release, then unavailable Some(1s)", "release, then unavailable Some(1s)"),
        (
            Presented::Answered(TokenVerdict::Misconfigured(code("invalid_client"))),
            None,
            "release, then unavailable None",
            "release, then unavailable None",
        ),
    ] {
        let next = with_terms(0, |terms| present(audience.clone()).next(answer.clone(), NOW, terms));
        assert_eq!(name(&next), first, "{answer:?} {audience:?}, first");
        let next = with_terms(0, |terms| present_again(audience.clone()).next(answer.clone(), NOW, terms));
        assert_eq!(name(&next), second, "{answer:?} {audience:?}, second");
    }
}

#[test]
fn p4_a_look_comes_before_an_end_and_before_a_second_attempt() {
    let same = record(ActivitySignal::Refresh);
    let other_tokens = {
        let mut record = samples::record();
        record.tokens.refresh_token = Some(RefreshToken::new("rotated"));
        Arc::new(record)
    };
    let refused = || Presented::Answered(TokenVerdict::Refused(ErrorCode::new("invalid_grant")));
    let ambiguous = || Presented::Answered(TokenVerdict::Ambiguous(ErrorCode::new("invalid_request")));
    let ended = EndReason::BackChannelLogout;
    for (look, after_refusal, before_second) in [
        (Ok(Loaded::Live(same)), "end refresh_token_rejected false", "wait Jitter, then present"),
        (Ok(Loaded::Live(newer())), "overtaken 2", "overtaken 2"),
        (Ok(Loaded::Live(other_tokens)), "overtaken 1", "overtaken 1"),
        (
            Ok(Loaded::Ended(EndMark { reason: ended, subject: None })),
            "ended Some(BackChannelLogout)",
            "ended Some(BackChannelLogout)",
        ),
        (Ok(Loaded::Unknown), "ended None", "ended None"),
        (Err(StoreFailed), "release, then unavailable None", "release, then unavailable None"),
    ] {
        for (answer, expected) in [(refused(), after_refusal), (ambiguous(), before_second)] {
            let Do::Load(load) = with_terms(0, |terms| present(None).next(answer, NOW, terms)) else {
                panic!("no look")
            };
            assert_eq!(name(&load.next(look.clone())), expected, "{look:?}");
        }
    }
}

#[test]
fn p3_commits() {
    let stored = newer();
    let ended = EndReason::IdleTimeout;
    for (answer, expected) in [
        (Ok(Committed::Committed(stored.clone())), "confirmed 2"),
        (Ok(Committed::Stale(stored)), "overtaken 2"),
        (Ok(Committed::Gone(None)), "end back_channel_logout true"),
        (Ok(Committed::Gone(Some(ended))), "end idle_timeout true"),
        (Err(StoreFailed), "wait Of(50ms), then commit"),
    ] {
        assert_eq!(name(&commit().next(answer.clone())), expected, "{answer:?}");
    }
}

/// How long it is tried, while `again` says no.
fn patience(mut next: Do, again: impl Fn(Do) -> Do) -> Duration {
    let mut waited = Duration::ZERO;
    loop {
        next = match again(next) {
            Do::Wait(wait) => {
                let Pause::Of(pause) = wait.pause else { panic!("no pause") };
                waited += pause;
                wait.next()
            }
            done => {
                assert_eq!(name(&done), "unavailable None");
                return waited;
            }
        };
    }
}

#[test]
fn p3_how_long_it_is_tried_is_told_by_the_pauses_and_no_clock() {
    let tried = patience(Do::Commit(commit()), |next| match next {
        Do::Commit(commit) => commit.next(Err(StoreFailed)),
        _ => panic!("no commit"),
    });
    assert_eq!(tried, SECOND * 60);
    let asked = patience(Do::Claim(claim()), |next| match next {
        Do::Claim(claim) => claim.next(Ok(Claimed::Held)),
        _ => panic!("no claim"),
    });
    assert_eq!(asked, SECOND * 10);
}

#[test]
fn p3_pauses_between_commits_grow_up_to_a_second() {
    let mut next = Do::Commit(commit());
    let mut pauses = Vec::new();
    for _ in 0..7 {
        let Do::Commit(commit) = next else { panic!("no commit") };
        let Do::Wait(wait) = commit.next(Err(StoreFailed)) else { panic!("no wait") };
        pauses.push(wait.pause);
        next = wait.next();
    }
    let millis = [50, 100, 200, 400, 800, 1000, 1000].map(|millis| Pause::Of(Duration::from_millis(millis)));
    assert_eq!(pauses, millis);
}

#[test]
fn p3_what_a_refresh_brings_is_in_the_record_that_is_stored() {
    let stored = commit();
    let tokens = &stored.record().tokens;
    assert_eq!(tokens.access_token, Some(AccessToken::new("new access")));
    assert_eq!(tokens.refresh_token, Some(RefreshToken::new("new refresh")));
    assert_eq!((tokens.expires_in, tokens.obtained_at), (Some(SECOND * 60), NOW));
    assert_eq!(stored.record().last_signal, NOW, "when the request went out, not when the answer came");
    // Without rotation the old token stays; a token for an audience leaves the login's as it is.
    let next = with_terms(1, |terms| present(Some(audience())).next(granted(None), NOW, terms));
    let Do::Commit(stored) = next else { panic!("no commit") };
    let tokens = &stored.record().tokens;
    assert_eq!(tokens.access_token, Some(AccessToken::new("access")));
    assert_eq!(tokens.refresh_token, Some(RefreshToken::new("refresh")));
    assert_eq!(tokens.others[&audience().name()].access_token, AccessToken::new("new access"));
}

#[test]
fn p4_userinfo() {
    for (answer, expected) in [
        (UserInfoAnswer::Confirmed, "commit"),
        (UserInfoAnswer::Forbidden, "commit"),
        (UserInfoAnswer::Refused, "load"),
        (UserInfoAnswer::Unavailable(Some(SECOND)), "release, then unavailable Some(1s)"),
    ] {
        let Do::Claim(claim) = begin(ActivitySignal::UserInfo, None) else { panic!("no claim") };
        let Do::AskUserInfo(ask) = claim.next(Ok(Claimed::Granted)) else { panic!("not asked") };
        assert_eq!(name(&with_terms(0, |terms| ask.next(answer, NOW, terms))), expected, "{answer:?}");
    }
}

#[test]
fn activity_of_a_session_that_cannot_signal_is_written_down() {
    for (answer, expected) in [
        (Ok(Committed::Committed(newer())), "confirmed 2"),
        (Ok(Committed::Stale(newer())), "confirmed 2"),
        (Ok(Committed::Gone(None)), "ended None"),
        (Err(StoreFailed), "unavailable None"),
    ] {
        let Do::Commit(commit) = with_terms(5, |terms| start(record(ActivitySignal::None), None, terms)) else {
            panic!("no commit")
        };
        assert_eq!(commit.record().last_signal, NOW + SECOND * 5);
        assert_eq!(name(&commit.next(answer.clone())), expected, "{answer:?}");
    }
}

#[test]
fn ends_and_releases() {
    let refused = || Presented::Answered(TokenVerdict::Refused(ErrorCode::new("invalid_grant")));
    for (answer, expected) in [(Ok(()), "ended Some(RefreshTokenRejected)"), (Err(StoreFailed), "unavailable None")] {
        let Do::Load(load) = with_terms(0, |terms| present(None).next(refused(), NOW, terms)) else {
            panic!("no look")
        };
        let Do::End(end) = load.next(Ok(Loaded::Live(record(ActivitySignal::Refresh)))) else { panic!("no end") };
        assert_eq!(name(&end.next(answer)), expected);
    }
}

#[test]
fn p4_an_unclear_refusal_of_many_ends_nobody() {
    let ambiguous = || Presented::Answered(TokenVerdict::Ambiguous(ErrorCode::new("invalid_request")));
    for (ambiguity, expected) in
        [(Ambiguity::Single, "load"), (Ambiguity::Widespread, "release, then unavailable None")]
    {
        let second = || present_after(ambiguous(), None);
        let next = with_terms(0, |terms| second().next(ambiguous(), NOW, &Terms { ambiguity, ..*terms }));
        assert_eq!(name(&next), expected, "{ambiguity:?}");
    }
}

#[test]
fn p4_it_takes_two_unclear_refusals_to_end_a_session() {
    let ambiguous = || Presented::Answered(TokenVerdict::Ambiguous(ErrorCode::new("invalid_request")));
    let unreadable = || Presented::Answered(TokenVerdict::Unreadable);
    for (first, second, expected) in [
        (ambiguous(), ambiguous(), "load"),
        // A provider that is still at the request whose answer was lost refuses the second as one too many.
        (Presented::Lost, ambiguous(), "release, then unavailable None"),
        (unreadable(), ambiguous(), "release, then unavailable None"),
        (ambiguous(), Presented::Lost, "release, then unavailable None"),
        (ambiguous(), unreadable(), "release, then unavailable None"),
    ] {
        let row = format!("{first:?}, {second:?}");
        let next = with_terms(0, |terms| present_after(first, None).next(second, NOW, terms));
        assert_eq!(name(&next), expected, "{row}");
    }
}

#[test]
fn p4_a_grant_refused_for_one_api_is_confirmed_by_a_plain_refresh() {
    let refused = || Presented::Answered(TokenVerdict::Refused(ErrorCode::new("invalid_grant")));
    let plain = || {
        let Do::Present(plain) = with_terms(0, |terms| present(Some(audience())).next(refused(), NOW, terms)) else {
            panic!("not presented")
        };
        assert_eq!(plain.audience(), None);
        plain
    };
    assert_eq!(present(Some(audience())).audience(), Some(&audience()));
    // It is a question of its own: an answer that is lost leaves it open, whatever became of those for the API.
    let again = with_terms(0, |terms| present_again(Some(audience())).next(refused(), NOW, terms));
    let Do::Present(again) = again else { panic!("not presented") };
    assert_eq!(name(&with_terms(0, |terms| again.next(Presented::Lost, NOW, terms))), "load");
    // The session stands: its new tokens are stored, and there is none for the API.
    let Do::Commit(commit) = with_terms(0, |terms| plain().next(granted(Some("new")), NOW, terms)) else {
        panic!("no commit")
    };
    assert_eq!(commit.record().tokens.refresh_token, Some(RefreshToken::new("new")));
    assert_eq!(name(&commit.next(Ok(Committed::Committed(newer())))), "denied");
    // It does not.
    let Do::Load(load) = with_terms(0, |terms| plain().next(refused(), NOW, terms)) else { panic!("no look") };
    assert_eq!(name(&load.next(Ok(Loaded::Live(record(ActivitySignal::Refresh))))), "end refresh_token_rejected false");
}

/// An answer with an ID token of these claims, which nobody has signed: `trust_channel` takes them as they are.
fn verify(claims: &serde_json::Value) -> Verify {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

    let part = |json: &serde_json::Value| URL_SAFE_NO_PAD.encode(json.to_string());
    let raw = format!("{}.{}.AA", part(&serde_json::json!({"alg": "RS256"})), part(claims));
    let Presented::Answered(TokenVerdict::Granted(mut response)) = granted(Some("rotated")) else { unreachable!() };
    response.id_token = Some(IdTokenHint::new(raw));
    let answer = Presented::Answered(TokenVerdict::Granted(response));
    let Do::Verify(verify) = with_terms(0, |terms| present(None).next(answer, NOW, terms)) else { panic!("no check") };
    verify
}

#[test]
fn p4_which_refreshed_id_tokens_end_a_session() {
    let claims = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut claims = serde_json::json!({
            "iss": "https://op.example", "aud": "shop", "sub": "alice", "iat": 1000, "exp": 1060, "nonce": "nonce",
        });
        change(&mut claims);
        claims
    };
    let other = "end provider_misbehaved false";
    for (change, expected, remark) in [
        (claims(&|_| ()), "commit", None),
        (claims(&|c| c["iss"] = "https://other.example".into()), other, None),
        (claims(&|c| c["sub"] = "bob".into()), other, None),
        (claims(&|c| c["nonce"] = "other".into()), other, None),
        (claims(&|c| drop(c.as_object_mut().unwrap().remove("nonce"))), "commit", None),
        (claims(&|c| c["aud"] = "other".into()), other, None),
        (claims(&|c| c["aud"] = serde_json::json!(["other"])), other, None),
        (claims(&|c| c["aud"] = serde_json::json!(["other", "shop"])), "commit", None),
        (claims(&|c| c["azp"] = "other".into()), other, None),
        (claims(&|c| c["azp"] = "shop".into()), "commit", None),
        // The user authenticated again elsewhere.
        (claims(&|c| c["auth_time"] = 999.into()), "commit", None),
        // Whose time is wrong is not the user's doing.
        (claims(&|c| c["iat"] = 1031.into()), "commit", Some("clock")),
        (claims(&|c| c["iat"] = 99_999.into()), "commit", Some("clock")),
        (claims(&|c| c["exp"] = 970.into()), "commit", Some("clock")),
        (claims(&|c| c["nbf"] = 2000.into()), "commit", Some("clock")),
        // What cannot be read says nothing of the user, and is not used.
        (claims(&|c| drop(c.as_object_mut().unwrap().remove("sub"))), "commit", Some("unusable")),
        (claims(&|c| c["iat"] = "x".into()), "commit", Some("unusable")),
        (claims(&|c| c["at_hash"] = "AAAA".into()), "commit", Some("unusable")),
    ] {
        let next = with_terms(1000, |terms| verify(&change).next(Verification::NoKeys, terms));
        let found = match &next {
            Do::Commit(commit) => commit.remark.as_ref().map(|remark| match remark {
                Remark::OtherType => "type",
                Remark::Times(_) => "clock",
                Remark::Unusable(_) => "unusable",
            }),
            _ => None,
        };
        assert_eq!((name(&next).as_str(), found), (expected, remark), "{change}");
    }
}

#[test]
fn p4_not_to_have_a_key_is_not_to_know_that_a_token_is_wrong() {
    let claims = serde_json::json!({"iss": "https://op.example", "aud": "shop", "sub": "alice", "iat": 0, "exp": 60});
    let token = |verification| {
        let Do::Commit(commit) = with_terms(0, |terms| verify(&claims).next(verification, terms)) else {
            panic!("no commit")
        };
        commit.record().tokens.clone()
    };
    let used = (Some(AccessToken::new("new access")), Some(RefreshToken::new("rotated")));
    let kept = (Some(AccessToken::new("access")), Some(RefreshToken::new("rotated")));
    for (verification, expected) in [
        (Verification::NoKeys, &used),
        (Verification::Wrong(TokenError::Key("none has the token's kid")), &used),
        (Verification::Wrong(TokenError::Signature), &kept),
        (Verification::Wrong(TokenError::Header("alg", "is not the algorithm agreed on")), &kept),
    ] {
        let row = format!("{verification:?}");
        let tokens = token(verification);
        assert_eq!((tokens.access_token, tokens.refresh_token), *expected, "{row}");
    }
    let Do::Commit(commit) =
        with_terms(5, |terms| verify(&claims).next(Verification::Wrong(TokenError::Signature), terms))
    else {
        panic!("no commit")
    };
    assert_eq!(commit.record().last_signal, NOW, "nothing was confirmed");
    let next = commit.next(Ok(Committed::Committed(newer())));
    assert_eq!(name(&next), "unavailable None");
}

#[test]
fn p7_a_rotated_token_of_a_superseded_session_is_not_revoked() {
    let next = commit().next(Ok(Committed::Gone(Some(EndReason::SupersededByLogin))));
    assert_eq!(name(&next), "end superseded_by_login false");
}
