use std::sync::LazyLock;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize, PublicKeyComponents};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair,
    Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384,
    RSA_PSS_SHA512, RsaEncoding,
};
use serde_json::json;

use super::samples::{CLIENT, ISSUER, NOW, TOLERANCE, at, encode, expected, map, with};
use super::*;

const NO_KEY: TokenError = TokenError::Key("none has the token's kid");
const WRONG_ALG: TokenError = TokenError::Header("alg", "is not the algorithm agreed on with the provider");

/// One key of each kind.
struct Keys {
    rsa: RsaKeyPair,
    p256: EcdsaKeyPair,
    p384: EcdsaKeyPair,
    ed25519: Ed25519KeyPair,
}

/// The provider's keys, and those of somebody else. Made once: RSA keys take a while.
static OURS: LazyLock<Keys> = LazyLock::new(Keys::generate);
static OTHERS: LazyLock<Keys> = LazyLock::new(Keys::generate);

impl Keys {
    fn generate() -> Self {
        Self {
            rsa: RsaKeyPair::generate(KeySize::Rsa2048).unwrap(),
            p256: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap(),
            p384: EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap(),
            ed25519: Ed25519KeyPair::generate().unwrap(),
        }
    }

    fn sign(&self, alg: SigningAlg, message: &str) -> Vec<u8> {
        let rng = SystemRandom::new();
        let rsa = |padding: &'static dyn RsaEncoding| {
            let mut signature = vec![0; self.rsa.public_modulus_len()];
            self.rsa.sign(padding, &rng, message.as_bytes(), &mut signature).unwrap();
            signature
        };
        match alg {
            SigningAlg::ES256 => self.p256.sign(&rng, message.as_bytes()).unwrap().as_ref().to_vec(),
            SigningAlg::ES384 => self.p384.sign(&rng, message.as_bytes()).unwrap().as_ref().to_vec(),
            SigningAlg::EdDSA => self.ed25519.sign(message.as_bytes()).as_ref().to_vec(),
            SigningAlg::PS256 => rsa(&RSA_PSS_SHA256),
            SigningAlg::PS384 => rsa(&RSA_PSS_SHA384),
            SigningAlg::PS512 => rsa(&RSA_PSS_SHA512),
            SigningAlg::RS256 => rsa(&RSA_PKCS1_SHA256),
            SigningAlg::RS384 => rsa(&RSA_PKCS1_SHA384),
            SigningAlg::RS512 => rsa(&RSA_PKCS1_SHA512),
        }
    }

    /// The public half of the key that `sign` uses, with nothing but what its kind demands.
    fn jwk(&self, alg: SigningAlg) -> Value {
        let ec = |curve: &str, pair: &EcdsaKeyPair| {
            // The uncompressed point: 4, x, y.
            let point = &pair.public_key().as_ref()[1..];
            let (x, y) = point.split_at(point.len() / 2);
            json!({"kty": "EC", "crv": curve, "x": encode(x), "y": encode(y)})
        };
        match alg {
            SigningAlg::ES256 => ec("P-256", &self.p256),
            SigningAlg::ES384 => ec("P-384", &self.p384),
            SigningAlg::EdDSA => {
                json!({"kty": "OKP", "crv": "Ed25519", "x": encode(self.ed25519.public_key().as_ref())})
            }
            _ => {
                let parts: PublicKeyComponents<Vec<u8>> = self.rsa.public_key().into();
                json!({"kty": "RSA", "n": encode(parts.n), "e": encode(parts.e)})
            }
        }
    }

    /// A token that these keys sign with `alg`, whatever its header says.
    fn token(&self, alg: SigningAlg, header: &Value, claims: &Value) -> String {
        let message = format!("{}.{}", encode(header.to_string()), encode(claims.to_string()));
        let signature = encode(self.sign(alg, &message));
        format!("{message}.{signature}")
    }
}

fn is_rsa(alg: SigningAlg) -> bool {
    !matches!(alg, SigningAlg::ES256 | SigningAlg::ES384 | SigningAlg::EdDSA)
}

fn key_set(keys: &[Value], alg: SigningAlg) -> KeySet {
    KeySet::parse(json!({ "keys": keys }).to_string().as_bytes(), alg).unwrap_or_default()
}

/// What comes of a token, and whether newer keys could change that.
fn verdict(token: &str, keys: &KeySet, alg: SigningAlg) -> (Result<(), TokenError>, bool) {
    match UnverifiedJwt::parse(token).unwrap().verify(keys, alg) {
        Ok(_) => (Ok(()), false),
        Err(failed) => {
            let (jwt, error) = *failed;
            let may_need_newer_keys = jwt.may_need_newer_keys(&error);
            (Err(error), may_need_newer_keys)
        }
    }
}

fn verify(token: &str, keys: &KeySet, alg: SigningAlg) -> Result<(), TokenError> {
    verdict(token, keys, alg).0
}

#[test]
fn every_algorithm_verifies_what_it_signed() {
    for alg in SigningAlg::ALL {
        let header = json!({"alg": alg.as_str(), "kid": "k", "typ": "JWT"});
        let token = OURS.token(alg, &header, &json!({"sub": "alice"}));
        let bare = with(&OURS.jwk(alg), "kid", Some(&json!("k")));
        // As providers publish it.
        let full = with(&with(&bare, "alg", Some(&json!(alg.as_str()))), "use", Some(&json!("sig")));
        for jwk in [bare, full] {
            let keys = key_set(std::slice::from_ref(&jwk), alg);
            let jwt = UnverifiedJwt::parse(&token).unwrap();
            assert_eq!(jwt.unverified_claims(), &map(&json!({"sub": "alice"})), "{alg:?}");
            let Ok(jwt) = jwt.verify(&keys, alg) else { panic!("{alg:?} with {jwk}") };
            assert_eq!(jwt.typ(), Ok(Some("JWT")), "{alg:?}");
            assert_eq!(jwt.into_claims(), map(&json!({"sub": "alice"})), "{alg:?}");
        }
    }
}

#[test]
fn the_header_names_the_agreed_algorithm_and_no_other() {
    for agreed in SigningAlg::ALL {
        let keys = key_set(&[OURS.jwk(agreed)], agreed);
        // The signature is right for what was agreed on: the header alone decides.
        let lower = agreed.as_str().to_lowercase();
        let padded = format!("{} ", agreed.as_str());
        let others = SigningAlg::ALL.map(SigningAlg::as_str).into_iter().filter(|name| *name != agreed.as_str());
        let headers = ["none", "None", "HS256", "HS384", "HS512", "ES512", "Ed25519", "", &lower, &padded]
            .into_iter()
            .chain(others)
            .map(|name| json!({ "alg": name }))
            .chain([json!({}), json!({"alg": null}), json!({"alg": 7}), json!({"alg": [agreed.as_str()]})]);
        for header in headers {
            let token = OURS.token(agreed, &header, &json!({}));
            assert_eq!(verdict(&token, &keys, agreed), (Err(WRONG_ALG), false), "{agreed:?}: {header}");
        }
        let unsigned = format!("{}.{}.", encode(r#"{"alg":"none"}"#), encode("{}"));
        assert_eq!(verify(&unsigned, &keys, agreed), Err(WRONG_ALG), "{agreed:?}: unsigned");
    }
}

#[test]
fn a_header_that_lies_about_the_algorithm_does_not_help() {
    for agreed in SigningAlg::ALL {
        for signed in SigningAlg::ALL {
            let token = OURS.token(signed, &json!({"alg": agreed.as_str()}), &json!({}));
            let of_signer = key_set(&[OURS.jwk(signed)], agreed);
            let expected = match () {
                () if signed == agreed => Ok(()),
                // One key serves all six; the padding or the digest is another.
                () if is_rsa(signed) && is_rsa(agreed) => Err(TokenError::Signature),
                () => Err(NO_KEY),
            };
            assert_eq!(verify(&token, &of_signer, agreed), expected, "{signed:?} for {agreed:?}");
            // Where the signer's key says what it is for, it is not even tried.
            let named = with(&OURS.jwk(signed), "alg", Some(&json!(signed.as_str())));
            let expected = if signed == agreed { Ok(()) } else { Err(NO_KEY) };
            assert_eq!(
                verify(&token, &key_set(&[named], agreed), agreed),
                expected,
                "{signed:?} for {agreed:?}, named"
            );
            let of_agreed = key_set(&[OURS.jwk(agreed)], agreed);
            let expected = if signed == agreed { Ok(()) } else { Err(TokenError::Signature) };
            assert_eq!(verify(&token, &of_agreed, agreed), expected, "{signed:?} for {agreed:?}, right key");
        }
    }
}

#[test]
fn another_key_of_the_same_kind_is_not_enough() {
    for alg in SigningAlg::ALL {
        let token = OTHERS.token(alg, &json!({"alg": alg.as_str()}), &json!({}));
        let keys = key_set(&[OURS.jwk(alg)], alg);
        assert_eq!(verify(&token, &keys, alg), Err(TokenError::Signature), "{alg:?}");
        let keys = key_set(&[OTHERS.jwk(alg)], alg);
        assert_eq!(verify(&token, &keys, alg), Ok(()), "{alg:?}: the test itself");
    }
}

#[test]
fn whoever_touches_a_token_breaks_it() {
    for alg in SigningAlg::ALL {
        let keys = key_set(&[OURS.jwk(alg)], alg);
        let (header, claims) = (json!({"alg": alg.as_str()}), json!({"sub": "alice"}));
        let token = OURS.token(alg, &header, &claims);
        let parts: Vec<&str> = token.split('.').collect();
        let [header, claims, signature] = parts.try_into().unwrap();
        assert_eq!(verify(&format!("{header}.{claims}.{signature}"), &keys, alg), Ok(()), "{alg:?}: untouched");

        let bytes = URL_SAFE_NO_PAD.decode(signature).unwrap();
        let touched = |touch: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = bytes.clone();
            touch(&mut bytes);
            encode(bytes)
        };
        let join = |header: &str, claims: &str, signature: &str| format!("{header}.{claims}.{signature}");
        let with_header = |json: String| join(&encode(json), claims, signature);
        let with_claims = |json: &str| join(header, &encode(json), signature);
        let with_signature = |touch: &dyn Fn(&mut Vec<u8>)| join(header, claims, &touched(touch));
        let rows = [
            ("other claims", with_claims(r#"{"sub":"mallory"}"#)),
            // It is the bytes that are signed.
            ("the same claims, written otherwise", with_claims(r#"{ "sub":"alice"}"#)),
            ("another header", with_header(format!(r#"{{"alg":"{}","typ":"JWT"}}"#, alg.as_str()))),
            ("the same header, written otherwise", with_header(format!(r#"{{ "alg":"{}"}}"#, alg.as_str()))),
            ("the first bit of the signature", with_signature(&|bytes| bytes[0] ^= 0x80)),
            ("a bit in the middle", with_signature(&|bytes| bytes[32] ^= 1)),
            ("the last bit", with_signature(&|bytes| *bytes.last_mut().unwrap() ^= 1)),
            ("one byte less", with_signature(&|bytes| bytes.truncate(bytes.len() - 1))),
            ("one byte more", with_signature(&|bytes| bytes.push(0))),
            ("zeros", with_signature(&|bytes| bytes.fill(0))),
            ("no signature", join(header, claims, "")),
        ];
        for (row, token) in rows {
            assert_eq!(verify(&token, &keys, alg), Err(TokenError::Signature), "{alg:?}: {row}");
        }
    }
}

#[test]
fn an_ecdsa_signature_is_two_numbers_and_not_der() {
    let pkcs8 = OURS.p256.to_pkcs8v1().unwrap();
    let der = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8.as_ref()).unwrap();
    let message = format!("{}.{}", encode(r#"{"alg":"ES256"}"#), encode("{}"));
    let signature = der.sign(&SystemRandom::new(), message.as_bytes()).unwrap();
    let keys = key_set(&[OURS.jwk(SigningAlg::ES256)], SigningAlg::ES256);
    let token = format!("{message}.{}", encode(signature.as_ref()));
    assert_eq!(verify(&token, &keys, SigningAlg::ES256), Err(TokenError::Signature));
}

#[test]
fn the_kid_tells_which_key() {
    const ALG: SigningAlg = SigningAlg::EdDSA;
    const SEVERAL: TokenError = TokenError::Key("there are several, and the token has no kid");
    const NO_STRING: TokenError = TokenError::Header("kid", "is not a string");
    let right = |kid: &str| with(&OURS.jwk(ALG), "kid", Some(&json!(kid)));
    let wrong = |kid: &str| with(&OTHERS.jwk(ALG), "kid", Some(&json!(kid)));
    let nameless = OURS.jwk(ALG);
    let for_encryption = |key: Value| with(&key, "use", Some(&json!("enc")));
    let none = || None::<Value>;
    // The keys, the token's kid, what comes of it, and whether newer keys could help.
    let rows = [
        (vec![right("a")], Some(json!("a")), Ok(()), false),
        (vec![right("a"), wrong("b")], Some(json!("a")), Ok(()), false),
        (vec![wrong("b"), right("a")], Some(json!("a")), Ok(()), false),
        (vec![right("")], Some(json!("")), Ok(()), false),
        // The only key there is needs no name, and a token that names none takes it.
        (vec![right("a")], none(), Ok(()), false),
        (vec![nameless.clone()], none(), Ok(()), false),
        (vec![wrong("a")], none(), Err(TokenError::Signature), true),
        (vec![right("a"), wrong("b")], none(), Err(SEVERAL), true),
        (vec![right("a"), nameless.clone()], none(), Err(SEVERAL), true),
        // Unknown.
        (vec![], Some(json!("a")), Err(NO_KEY), true),
        (vec![], none(), Err(NO_KEY), true),
        (vec![right("a")], Some(json!("b")), Err(NO_KEY), true),
        (vec![right("a")], Some(json!("A")), Err(NO_KEY), true),
        (vec![right("a")], Some(json!("")), Err(NO_KEY), true),
        (vec![nameless.clone()], Some(json!("a")), Err(NO_KEY), true),
        // The named key is taken, though another one would do.
        (vec![right("a"), wrong("b")], Some(json!("b")), Err(TokenError::Signature), false),
        // Several of one name: each is tried.
        (vec![right("a"), wrong("a")], Some(json!("a")), Ok(()), false),
        (vec![wrong("a"), right("a")], Some(json!("a")), Ok(()), false),
        (vec![right("a"), right("a")], Some(json!("a")), Ok(()), false),
        (vec![wrong("a"), wrong("a")], Some(json!("a")), Err(TokenError::Signature), false),
        (vec![right("a"), wrong("b"), wrong("b")], Some(json!("a")), Ok(()), false),
        // Keys for encryption count for nothing.
        (vec![for_encryption(right("a"))], Some(json!("a")), Err(NO_KEY), true),
        (vec![for_encryption(wrong("a")), right("a")], Some(json!("a")), Ok(()), false),
        (vec![for_encryption(wrong("b")), right("a")], none(), Ok(()), false),
        // No string.
        (vec![right("a")], Some(json!(null)), Err(NO_STRING), false),
        (vec![right("7")], Some(json!(7)), Err(NO_STRING), false),
        (vec![right("a")], Some(json!(["a"])), Err(NO_STRING), false),
    ];
    for (keys, kid, expected, newer_keys) in rows {
        let header = with(&json!({"alg": ALG.as_str()}), "kid", kid.as_ref());
        let token = OURS.token(ALG, &header, &json!({}));
        let names: Vec<_> = keys.iter().map(|key| (key.get("kid"), key.get("use"))).collect();
        assert_eq!(verdict(&token, &key_set(&keys, ALG), ALG), (expected, newer_keys), "{names:?} and {kid:?}");
    }
}

#[test]
fn keys_that_do_not_fit_are_left_out() {
    use SigningAlg::{ES256, ES384, EdDSA, PS512, RS256};
    let key = |alg: SigningAlg, name: &str, value: Value| with(&OURS.jwk(alg), name, Some(&value));
    let rows = [
        (RS256, OURS.jwk(RS256), true),
        (PS512, OURS.jwk(RS256), true),
        (ES256, OURS.jwk(ES256), true),
        (ES384, OURS.jwk(ES384), true),
        (EdDSA, OURS.jwk(EdDSA), true),
        // Another kind.
        (RS256, OURS.jwk(ES256), false),
        (RS256, OURS.jwk(EdDSA), false),
        (ES256, OURS.jwk(RS256), false),
        (ES256, OURS.jwk(EdDSA), false),
        (EdDSA, OURS.jwk(ES256), false),
        (EdDSA, OURS.jwk(RS256), false),
        // Another curve.
        (ES256, OURS.jwk(ES384), false),
        (ES384, OURS.jwk(ES256), false),
        (ES256, key(ES256, "crv", json!("P-521")), false),
        (ES256, key(ES256, "crv", json!("secp256k1")), false),
        (EdDSA, key(EdDSA, "crv", json!("X25519")), false),
        (EdDSA, key(EdDSA, "crv", json!("Ed448")), false),
        // A symmetric key: whoever knows the public half could sign with it.
        (RS256, json!({"kty": "oct", "k": "AAAA"}), false),
        (RS256, json!({"kty": "oct", "k": "AAAA", "alg": "RS256"}), false),
        // Another use.
        (RS256, key(RS256, "use", json!("sig")), true),
        (RS256, key(RS256, "use", json!("enc")), false),
        (RS256, key(RS256, "use", json!("other")), false),
        // Another algorithm.
        (RS256, key(RS256, "alg", json!("RS256")), true),
        (RS256, key(RS256, "alg", json!("RS384")), false),
        (RS256, key(RS256, "alg", json!("PS256")), false),
        (PS512, key(RS256, "alg", json!("RS512")), false),
        (RS256, key(RS256, "alg", json!("RSA-OAEP")), false),
        (RS256, key(RS256, "alg", json!("HS256")), false),
        (RS256, key(RS256, "alg", json!("something new")), false),
        // What cannot be read.
        (RS256, json!({}), false),
        (RS256, json!(null), false),
        (RS256, json!("key"), false),
        (RS256, json!({"kty": "something new"}), false),
        (RS256, json!({"kty": "RSA", "e": "AQAB"}), false),
        (RS256, key(RS256, "n", json!("not base64url!")), false),
        (RS256, key(RS256, "n", json!(7)), false),
        (ES256, key(ES256, "x", json!("not base64url!")), false),
        (RS256, key(RS256, "kid", json!(7)), false),
    ];
    for (alg, jwk, fits) in rows {
        let alone = key_set(std::slice::from_ref(&jwk), alg).keys.len();
        assert_eq!(alone, usize::from(fits), "{alg:?} with {jwk}");
        // It takes no other key with it.
        let beside = key_set(&[jwk.clone(), OTHERS.jwk(alg)], alg).keys.len();
        assert_eq!(beside, usize::from(fits) + 1, "{alg:?} with {jwk} and another key");
    }
}

#[test]
fn numbers_of_an_rsa_key_may_begin_with_zeros() {
    let alg = SigningAlg::RS256;
    let parts: PublicKeyComponents<Vec<u8>> = OURS.rsa.public_key().into();
    let padded = |number: Vec<u8>| encode([vec![0, 0], number].concat());
    let jwk = json!({"kty": "RSA", "n": padded(parts.n), "e": padded(parts.e)});
    let token = OURS.token(alg, &json!({"alg": alg.as_str()}), &json!({}));
    assert_eq!(verify(&token, &key_set(&[jwk], alg), alg), Ok(()));
}

#[test]
fn a_set_is_none_where_no_key_fits() {
    let set = json!({"keys": [OURS.jwk(SigningAlg::ES256)]}).to_string();
    for (agreed, is_set) in [(SigningAlg::ES256, true), (SigningAlg::RS256, false)] {
        assert_eq!(KeySet::parse(set.as_bytes(), agreed).is_some(), is_set, "{agreed:?}");
    }
}

#[test]
fn a_key_set_is_an_object_with_a_list_of_keys() {
    let key = OURS.jwk(SigningAlg::RS256);
    let rows = [
        (&*format!(r#"{{"keys":[{key}]}}"#), true),
        (&*format!(r#"{{"keys":["x",{key}],"more":1}}"#), true),
        (r#"{"keys":[]}"#, false),
        (r#"{"keys":{}}"#, false),
        (r#"{"keys":null}"#, false),
        (r#"{"keys":"x"}"#, false),
        ("{}", false),
        ("[]", false),
        ("null", false),
        ("", false),
        ("<html>", false),
        (&*format!(r#"{{"keys":[{key}]"#), false),
        (&*format!(r#"{{"keys":[{key}]}} x"#), false),
    ];
    for (json, is_set) in rows {
        assert_eq!(KeySet::parse(json.as_bytes(), SigningAlg::RS256).is_some(), is_set, "{json}");
    }
}

#[test]
fn what_is_no_signed_jwt_is_refused_before_any_key_is_looked_at() {
    const PARTS: TokenError = TokenError::Malformed("not three parts");
    const HEADER: TokenError = TokenError::Malformed("the header is no JSON object");
    const CLAIMS: TokenError = TokenError::Malformed("the claims are no JSON object");
    const SIGNATURE: TokenError = TokenError::Malformed("the signature is not base64url");
    const CRIT: TokenError = TokenError::Header("crit", "lists extensions that are not understood");
    let [header, claims] = [r#"{"alg":"RS256"}"#, "{}"].map(encode);
    let with_header = |header: &[u8]| format!("{}.{claims}.AAAA", encode(header));
    let with_claims = |claims: &[u8]| format!("{header}.{}.AAAA", encode(claims));
    let rows = [
        ("a token", format!("{header}.{claims}.AAAA"), None),
        ("an empty signature", format!("{header}.{claims}."), None),
        ("nothing", String::new(), Some(PARTS)),
        ("one part", header.clone(), Some(PARTS)),
        ("two parts", format!("{header}.{claims}"), Some(PARTS)),
        ("four parts", format!("{header}.{claims}.AAAA.AAAA"), Some(PARTS)),
        ("five parts: encrypted", format!("{header}.AAAA.AAAA.AAAA.AAAA"), Some(TokenError::Malformed(ENCRYPTED))),
        ("a dot at the end", format!("{header}.{claims}.AAAA."), Some(PARTS)),
        ("dots", "..".to_owned(), Some(HEADER)),
        ("no header", format!(".{claims}.AAAA"), Some(HEADER)),
        ("no claims", format!("{header}..AAAA"), Some(CLAIMS)),
        ("a header with padding", format!("{header}=.{claims}.AAAA"), Some(HEADER)),
        ("a header that is not encoded", format!(r#"{{"alg":"RS256"}}.{claims}.AAAA"#), Some(HEADER)),
        ("claims with padding", format!("{header}.{claims}=.AAAA"), Some(CLAIMS)),
        ("claims with a line feed", format!("{header}.{claims}\n.AAAA"), Some(CLAIMS)),
        ("a signature with padding", format!("{header}.{claims}.AAA="), Some(SIGNATURE)),
        ("a signature in plain base64", format!("{header}.{claims}.AA+/"), Some(SIGNATURE)),
        ("a signature of half a byte", format!("{header}.{claims}.A"), Some(SIGNATURE)),
        // Else one token would have several spellings.
        ("a signature with spare bits", format!("{header}.{claims}.AB"), Some(SIGNATURE)),
        ("a space before", format!(" {header}.{claims}.AAAA"), Some(HEADER)),
        ("a space after", format!("{header}.{claims}.AAAA "), Some(SIGNATURE)),
        ("a list for a header", with_header(br#"["RS256"]"#), Some(HEADER)),
        ("a string for a header", with_header(br#""RS256""#), Some(HEADER)),
        ("null for a header", with_header(b"null"), Some(HEADER)),
        ("half a header", with_header(br#"{"alg":"RS256""#), Some(HEADER)),
        ("two headers", with_header(br#"{"alg":"RS256"}{}"#), Some(HEADER)),
        ("a header that is not UTF-8", with_header(b"{\"alg\":\"RS256\",\"x\":\"\xff\"}"), Some(HEADER)),
        ("a list for claims", with_claims(b"[]"), Some(CLAIMS)),
        ("text for claims", with_claims(b"Example of Ed25519 signing"), Some(CLAIMS)),
        ("half the claims", with_claims(br#"{"sub":"alice""#), Some(CLAIMS)),
        ("claims that are not UTF-8", with_claims(b"{\"sub\":\"\xff\"}"), Some(CLAIMS)),
        ("crit", with_header(br#"{"alg":"RS256","crit":["exp"],"exp":1}"#), Some(CRIT)),
        ("crit with b64", with_header(br#"{"alg":"RS256","crit":["b64"],"b64":false}"#), Some(CRIT)),
        // Not allowed either (RFC 7515 §4.1.11).
        ("an empty crit", with_header(br#"{"alg":"RS256","crit":[]}"#), Some(CRIT)),
        ("crit that is null", with_header(br#"{"alg":"RS256","crit":null}"#), Some(CRIT)),
    ];
    for (row, token, expected) in rows {
        assert_eq!(UnverifiedJwt::parse(&token).err(), expected, "{row}: {token}");
    }
}

#[test]
fn a_token_may_be_so_long_and_no_longer() {
    // Not every length of a part is one of base64url: the claims take up the difference.
    let token_of = |length: usize| {
        (0..4).find_map(|spaces| {
            let start = format!("{}.{}.", encode(r#"{"alg":"RS256"}"#), encode(format!("{{}}{}", " ".repeat(spaces))));
            let rest = length - start.len();
            (rest % 4 != 1).then(|| start + &"A".repeat(rest))
        })
    };
    let too_long = Some(TokenError::Malformed("too long"));
    for (length, expected) in [(65_535, None), (65_536, None), (65_537, too_long.clone()), (1_000_000, too_long)] {
        let token = token_of(length).unwrap();
        assert_eq!(token.len(), length, "the test itself");
        assert_eq!(UnverifiedJwt::parse(&token).err(), expected, "{length} bytes");
    }
}

// The vectors of the RFCs.

const A2_N: &str = concat!(
    "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddx",
    "HmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMs",
    "D1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSH",
    "SXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdV",
    "MTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8",
    "NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ",
);
const A2: &str = concat!(
    "eyJhbGciOiJSUzI1NiJ9.",
    "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFt",
    "cGxlLmNvbS9pc19yb290Ijp0cnVlfQ.",
    "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7",
    "AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4",
    "BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K",
    "0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqv",
    "hJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrB",
    "p0igcN_IoypGlUPQGe77Rw",
);
const A3: &str = concat!(
    "eyJhbGciOiJFUzI1NiJ9.",
    "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFt",
    "cGxlLmNvbS9pc19yb290Ijp0cnVlfQ.",
    "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSA",
    "pmWQxfKTUJqPP3-Kg6NU1Q",
);

#[test]
fn the_tokens_of_rfc_7515_are_right() {
    let a2_key = json!({"kty": "RSA", "n": A2_N, "e": "AQAB"});
    let a3_key = json!({
        "kty": "EC",
        "crv": "P-256",
        "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
        "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
    });
    let claims = map(&json!({"iss": "joe", "exp": 1_300_819_380, "http://example.com/is_root": true}));
    let rows = [("A.2", SigningAlg::RS256, a2_key, A2), ("A.3", SigningAlg::ES256, a3_key, A3)];
    for (row, alg, key, token) in rows {
        let Ok(jwt) = UnverifiedJwt::parse(token).unwrap().verify(&key_set(&[key], alg), alg) else { panic!("{row}") };
        assert_eq!(jwt.typ(), Ok(None), "{row}");
        assert_eq!(jwt.into_claims(), claims, "{row}");
    }
}

#[test]
fn the_unsigned_token_of_rfc_7515_is_refused() {
    // A.5.
    let token = concat!(
        "eyJhbGciOiJub25lIn0.",
        "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFt",
        "cGxlLmNvbS9pc19yb290Ijp0cnVlfQ.",
    );
    for alg in SigningAlg::ALL {
        assert_eq!(verify(token, &key_set(&[OURS.jwk(alg)], alg), alg), Err(WRONG_ALG), "{alg:?}");
    }
}

/// RFC 7520 §3.3 (figure 3).
fn bilbo() -> Value {
    let n = concat!(
        "n4EPtAOCc9AlkeQHPzHStgAbgs7bTZLwUBZdR8_KuKPEHLd4rHVTeT",
        "-O-XV2jRojdNhxJWTDvNd7nqQ0VEiZQHz_AJmSCpMaJMRBSFKrKb2wqV",
        "wGU_NsYOYL-QtiWN2lbzcEe6XC0dApr5ydQLrHqkHHig3RBordaZ6Aj-",
        "oBHqFEHYpPe7Tpe-OfVfHd1E6cS6M1FZcD1NNLYD5lFHpPI9bTwJlsde",
        "3uhGqC0ZCuEHg8lhzwOHrtIQbS0FVbb9k3-tVTU4fg_3L_vniUFAKwuC",
        "LqKnS2BYwdq_mzSnbLY7h_qixoR7jig3__kRhuaxwUkRz5iaiQkqgc5g",
        "HdrNP5zw",
    );
    json!({"kty": "RSA", "kid": "bilbo.baggins@hobbiton.example", "use": "sig", "n": n, "e": "AQAB"})
}

/// RFC 7520 §4.2 (figures 17, 8 and 19).
const BILBO_PS384: [&str; 3] = [
    "eyJhbGciOiJQUzM4NCIsImtpZCI6ImJpbGJvLmJhZ2dpbnNAaG9iYml0b24uZXhhbXBsZSJ9",
    concat!(
        "SXTigJlzIGEgZGFuZ2Vyb3VzIGJ1c2luZXNzLCBGcm9kbywgZ29pbmcgb3V0IH",
        "lvdXIgZG9vci4gWW91IHN0ZXAgb250byB0aGUgcm9hZCwgYW5kIGlmIHlvdSBk",
        "b24ndCBrZWVwIHlvdXIgZmVldCwgdGhlcmXigJlzIG5vIGtub3dpbmcgd2hlcm",
        "UgeW91IG1pZ2h0IGJlIHN3ZXB0IG9mZiB0by4",
    ),
    concat!(
        "cu22eBqkYDKgIlTpzDXGvaFfz6WGoz7fUDcfT0kkOy42miAh2qyBzk1xEsnk2I",
        "pN6-tPid6VrklHkqsGqDqHCdP6O8TTB5dDDItllVo6_1OLPpcbUrhiUSMxbbXU",
        "vdvWXzg-UD8biiReQFlfz28zGWVsdiNAUf8ZnyPEgVFn442ZdNqiVJRmBqrYRX",
        "e8P_ijQ7p8Vdz0TTrxUeT3lm8d9shnr2lfJT8ImUjvAA2Xez2Mlp8cBE5awDzT",
        "0qI0n6uiP1aCN_2_jLAeQTlqRHtfa64QQSUmFAAjVKPbByi7xho0uTOcbH510a",
        "6GYmJUAfmWjwZ6oD4ifKo8DYM-X72Eaw",
    ),
];

/// RFC 8037 appendix A.4.
const EXAMPLE_OF_ED25519: [&str; 3] = [
    "eyJhbGciOiJFZERTQSJ9",
    "RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc",
    "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg",
];

#[test]
fn the_signatures_of_rfc_7520_and_rfc_8037_are_right() {
    let ed25519 = json!({"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"});
    let rows = [(SigningAlg::PS384, bilbo(), BILBO_PS384), (SigningAlg::EdDSA, ed25519, EXAMPLE_OF_ED25519)];
    for (alg, key, [header, payload, signature]) in rows {
        let message = format!("{header}.{payload}");
        // What they sign is text and no claims, so it is no token: only the signature is looked at.
        assert!(UnverifiedJwt::parse(&format!("{message}.{signature}")).is_err(), "{alg:?}");
        let check = |message: &str| {
            let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
            let jwt = UnverifiedJwt { header: object(header).unwrap(), claims: Map::new(), message, signature };
            jwt.check_signature(&key_set(std::slice::from_ref(&key), alg), alg)
        };
        assert_eq!(check(&message), Ok(()), "{alg:?}");
        assert_eq!(check(&format!("{message}A")), Err(TokenError::Signature), "{alg:?}");
    }
}

// Claims.

#[test]
fn a_text_is_a_string_that_is_not_empty() {
    let wrong = Err(TokenError::Claim("x", "is not a non-empty string"));
    let rows = [
        (None, Ok(None)),
        (Some(json!("a")), Ok(Some("a"))),
        (Some(json!(" ")), Ok(Some(" "))),
        (Some(json!("null")), Ok(Some("null"))),
        (Some(json!("ü\u{0}")), Ok(Some("ü\u{0}"))),
        (Some(json!("")), wrong.clone()),
        (Some(json!(null)), wrong.clone()),
        (Some(json!(7)), wrong.clone()),
        (Some(json!(true)), wrong.clone()),
        (Some(json!(["a"])), wrong.clone()),
        (Some(json!({"x": "a"})), wrong),
    ];
    for (value, expected) in rows {
        let claims = map(&with(&json!({"y": "b"}), "x", value.as_ref()));
        assert_eq!(text(&claims, "x"), expected, "{value:?}");
    }
}

#[test]
fn a_date_is_a_number_of_seconds_until_the_year_9999() {
    let wrong = Err(TokenError::Claim("x", "is not a NumericDate"));
    let right = |milliseconds: u64| Ok(Some(SystemTime::UNIX_EPOCH + Duration::from_millis(milliseconds)));
    let rows = [
        (None, Ok(None)),
        (Some(json!(0)), right(0)),
        (Some(json!(-0.0)), right(0)),
        (Some(json!(NOW)), right(NOW * 1000)),
        (Some(json!(1.7e9)), right(NOW * 1000)),
        (Some(json!(1_700_000_000.5)), right(NOW * 1000 + 500)),
        (Some(json!(0.25)), right(250)),
        (Some(json!(253_402_300_799_u64)), right(253_402_300_799_000)),
        (Some(json!(253_402_300_799.5)), wrong.clone()),
        (Some(json!(253_402_300_800_u64)), wrong.clone()),
        // Milliseconds, as a mistaken provider writes them.
        (Some(json!(1_700_000_000_000_u64)), wrong.clone()),
        (Some(json!(u64::MAX)), wrong.clone()),
        (Some(json!(1e300)), wrong.clone()),
        (Some(json!(-1)), wrong.clone()),
        (Some(json!(-0.5)), wrong.clone()),
        (Some(json!(i64::MIN)), wrong.clone()),
        (Some(json!("1700000000")), wrong.clone()),
        (Some(json!("2023-11-14T22:13:20Z")), wrong.clone()),
        (Some(json!(null)), wrong.clone()),
        (Some(json!(true)), wrong.clone()),
        (Some(json!([1_700_000_000])), wrong.clone()),
        (Some(json!({})), wrong),
    ];
    for (value, expected) in rows {
        let claims = map(&with(&json!({"y": 1}), "x", value.as_ref()));
        assert_eq!(date(&claims, "x"), expected, "{value:?}");
    }
}

#[test]
fn common_claims() {
    const ISS: &str = "is not the configured issuer";
    const NO_TEXT: &str = "is not a non-empty string";
    const AUD: &str = "is not this client";
    const OTHERS: &str = "has others, and azp does not name this client";
    const NO_STRINGS: &str = "is not a list of strings";
    const AZP: &str = "is not this client";
    const FUTURE: &str = "is in the future";
    const NO_DATE: &str = "is not a NumericDate";
    // The first half second after the last moment that is not yet the future.
    let too_late = json!(1_700_000_060.5);
    let right = json!({"iss": ISSUER, "aud": CLIENT, "iat": NOW});
    // One claim changed or taken away, and what is wrong then.
    let rows = [
        ("iss", Some(json!(ISSUER)), None),
        ("iss", None, Some(ISS)),
        ("iss", Some(json!("https://op.example/")), Some(ISS)),
        ("iss", Some(json!("https://OP.example")), Some(ISS)),
        ("iss", Some(json!("http://op.example")), Some(ISS)),
        ("iss", Some(json!("https://op.example.evil.example")), Some(ISS)),
        ("iss", Some(json!("")), Some(NO_TEXT)),
        ("iss", Some(json!(null)), Some(NO_TEXT)),
        ("iss", Some(json!([ISSUER])), Some(NO_TEXT)),
        ("aud", Some(json!([CLIENT])), None),
        ("aud", Some(json!([CLIENT, CLIENT])), None),
        ("aud", None, Some("is missing")),
        ("aud", Some(json!("other")), Some(AUD)),
        ("aud", Some(json!("Shop")), Some(AUD)),
        ("aud", Some(json!("shop other")), Some(AUD)),
        ("aud", Some(json!("")), Some(AUD)),
        ("aud", Some(json!(null)), Some(AUD)),
        ("aud", Some(json!(7)), Some(AUD)),
        ("aud", Some(json!({"shop": true})), Some(AUD)),
        ("aud", Some(json!([])), Some(AUD)),
        ("aud", Some(json!(["other"])), Some(AUD)),
        ("aud", Some(json!([CLIENT, "other"])), Some(OTHERS)),
        ("aud", Some(json!(["other", CLIENT])), Some(OTHERS)),
        ("aud", Some(json!([CLIENT, null])), Some(NO_STRINGS)),
        ("aud", Some(json!([[CLIENT]])), Some(NO_STRINGS)),
        ("azp", None, None),
        ("azp", Some(json!(CLIENT)), None),
        ("azp", Some(json!("other")), Some(AZP)),
        ("azp", Some(json!("Shop")), Some(AZP)),
        ("azp", Some(json!("")), Some(NO_TEXT)),
        ("azp", Some(json!(null)), Some(NO_TEXT)),
        ("azp", Some(json!([CLIENT])), Some(NO_TEXT)),
        ("nbf", None, None),
        ("nbf", Some(json!(0)), None),
        ("nbf", Some(json!(NOW)), None),
        ("nbf", Some(json!(NOW + TOLERANCE)), None),
        ("nbf", Some(too_late.clone()), Some(FUTURE)),
        ("nbf", Some(json!(NOW + TOLERANCE + 1)), Some(FUTURE)),
        ("nbf", Some(json!(null)), Some(NO_DATE)),
        ("nbf", Some(json!("0")), Some(NO_DATE)),
        ("iat", Some(json!(0)), None),
        ("iat", Some(json!(NOW + TOLERANCE)), None),
        ("iat", Some(too_late), Some(FUTURE)),
        ("iat", Some(json!(NOW + TOLERANCE + 1)), Some(FUTURE)),
        ("iat", Some(json!(253_402_300_799_u64)), Some(FUTURE)),
        ("iat", None, Some("is missing")),
        ("iat", Some(json!(null)), Some(NO_DATE)),
        ("iat", Some(json!("1700000000")), Some(NO_DATE)),
        ("iat", Some(json!(-1)), Some(NO_DATE)),
        // Expiry is another function's business.
        ("exp", Some(json!(0)), None),
    ];
    for (name, value, expected) in rows {
        let claims = map(&with(&right, name, value.as_ref()));
        let outcome = check_common(&claims, &samples::expected());
        let expected = match expected {
            Some(rule) => Err(TokenError::Claim(name, rule)),
            // It gives back when the token was issued.
            None => Ok(date(&claims, "iat").unwrap().unwrap()),
        };
        assert_eq!(outcome, expected, "{name}: {value:?}");
    }
}

#[test]
fn issued_at_is_returned_as_written() {
    let claims = map(&json!({"iss": ISSUER, "aud": CLIENT, "iat": NOW - 1000}));
    assert_eq!(check_common(&claims, &expected()), Ok(at(NOW - 1000)));
}

#[test]
fn expiry_is_the_first_moment_at_which_a_token_is_too_old() {
    const PAST: &str = "is in the past";
    const NO_DATE: &str = "is not a NumericDate";
    let rows = [
        (Some(json!(NOW + 300)), None),
        (Some(json!(NOW)), None),
        (Some(json!(NOW - TOLERANCE + 1)), None),
        (Some(json!(1_699_999_940.5)), None),
        (Some(json!(NOW - TOLERANCE)), Some(PAST)),
        (Some(json!(1_699_999_939.5)), Some(PAST)),
        (Some(json!(NOW - TOLERANCE - 1)), Some(PAST)),
        (Some(json!(0)), Some(PAST)),
        (Some(json!(253_402_300_799_u64)), None),
        (None, Some("is missing")),
        (Some(json!(null)), Some(NO_DATE)),
        (Some(json!("1700000300")), Some(NO_DATE)),
        (Some(json!(-1)), Some(NO_DATE)),
        (Some(json!(u64::MAX)), Some(NO_DATE)),
    ];
    for (value, expected) in rows {
        let claims = map(&with(&json!({}), "exp", value.as_ref()));
        let expected = expected.map(|rule| TokenError::Claim("exp", rule));
        assert_eq!(check_expiry(&claims, samples::expected().at).err(), expected, "{value:?}");
    }
}

#[test]
fn names_of_algorithms() {
    for alg in SigningAlg::ALL {
        assert_eq!(SigningAlg::from_name(alg.as_str()), Some(alg), "{alg:?}");
        assert_eq!(format!("{alg:?}"), alg.as_str());
    }
    for name in ["none", "HS256", "ES512", "rs256", "Ed25519", "", " RS256"] {
        assert_eq!(SigningAlg::from_name(name), None, "{name}");
    }
    assert_eq!(SigningAlg::default(), SigningAlg::RS256);
}

#[test]
fn a_typ_is_a_string() {
    let rows = [
        (None, Ok(None)),
        (Some(json!("JWT")), Ok(Some("JWT"))),
        (Some(json!("at+jwt")), Ok(Some("at+jwt"))),
        (Some(json!("")), Ok(Some(""))),
        (Some(json!(null)), Err(TokenError::Header("typ", "is not a string"))),
        (Some(json!(["JWT"])), Err(TokenError::Header("typ", "is not a string"))),
    ];
    for (typ, expected) in rows {
        let header = with(&json!({"alg": "RS256"}), "typ", typ.as_ref());
        assert_eq!(samples::verified(&header, &json!({})).typ(), expected, "{typ:?}");
    }
}
