//! The keys that tokens are signed with, as an authorization server publishes them (JWK Set, RFC 7517).
//!
//! A key knows which signatures it makes: an algorithm is never chosen by a token alone. There is no
//! `none` here and nothing symmetric, so neither can be asked for.

use std::{fmt, str::FromStr};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::signature::{
    self, EcdsaVerificationAlgorithm, RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey,
};
use serde::Deserialize;
use serde_json::Value;

/// Most keys of a set.
const MOST: usize = 100;
/// Smallest modulus of RSA, bytes.
const SMALLEST_RSA: usize = 256;

/// How a token may be signed (RFC 7518, 8037).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of the registry")]
pub enum Algorithm {
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    Es256,
    Es384,
    EdDsa,
}

/// The text names no algorithm that is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be some of RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, EdDSA")]
pub struct UnknownAlgorithm;

impl Algorithm {
    /// All of them.
    const ALL: [Self; 9] = [
        Self::Rs256,
        Self::Rs384,
        Self::Rs512,
        Self::Ps256,
        Self::Ps384,
        Self::Ps512,
        Self::Es256,
        Self::Es384,
        Self::EdDsa,
    ];

    fn as_str(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Rs384 => "RS384",
            Self::Rs512 => "RS512",
            Self::Ps256 => "PS256",
            Self::Ps384 => "PS384",
            Self::Ps512 => "PS512",
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::EdDsa => "EdDSA",
        }
    }

    /// How a key makes it.
    fn scheme(self) -> Scheme {
        match self {
            Self::Rs256 => Scheme::Rsa(&signature::RSA_PKCS1_2048_8192_SHA256),
            Self::Rs384 => Scheme::Rsa(&signature::RSA_PKCS1_2048_8192_SHA384),
            Self::Rs512 => Scheme::Rsa(&signature::RSA_PKCS1_2048_8192_SHA512),
            Self::Ps256 => Scheme::Rsa(&signature::RSA_PSS_2048_8192_SHA256),
            Self::Ps384 => Scheme::Rsa(&signature::RSA_PSS_2048_8192_SHA384),
            Self::Ps512 => Scheme::Rsa(&signature::RSA_PSS_2048_8192_SHA512),
            Self::Es256 => Scheme::Ec(Curve::P256, &signature::ECDSA_P256_SHA256_FIXED),
            Self::Es384 => Scheme::Ec(Curve::P384, &signature::ECDSA_P384_SHA384_FIXED),
            Self::EdDsa => Scheme::Ed25519,
        }
    }
}

/// A name of the registry; by case, as RFC 7515 has it. `Ed25519` is the newer name of the one `EdDSA`
/// that is served (RFC 9864).
impl FromStr for Algorithm {
    type Err = UnknownAlgorithm;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let named = |algorithm: &Self| algorithm.as_str() == text;
        let newer = (text == "Ed25519").then_some(Self::EdDsa);
        Self::ALL.into_iter().find(named).or(newer).ok_or(UnknownAlgorithm)
    }
}

enum Scheme {
    Rsa(&'static RsaParameters),
    Ec(Curve, &'static EcdsaVerificationAlgorithm),
    Ed25519,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Curve {
    P256,
    P384,
}

/// The public half of a key.
enum Material {
    Rsa { n: Vec<u8>, e: Vec<u8> },
    Ec { curve: Curve, point: Vec<u8> },
    Ed25519 { point: Vec<u8> },
}

/// A key with its name.
struct PublicKey {
    id: String,
    /// The one algorithm that it is for, if it says so.
    only: Option<Algorithm>,
    material: Material,
}

/// A document is no set of keys, or of none that can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKeySet {
    /// Not the form of one.
    #[error("not a JWK set")]
    Form,
    /// More than anybody needs.
    #[error("more than {MOST} keys")]
    TooMany,
    /// Nothing in it checks a signature.
    #[error(
        "no key in it has an id and checks signatures of RSA (2048 bits or more), P-256, P-384 or Ed25519"
    )]
    Useless,
}

/// The keys of an authorization server.
pub struct KeySet(Vec<PublicKey>);

/// What a signature is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BadSignature {
    /// No key of the set has that name.
    UnknownKey,
    /// The key makes no such signatures.
    OtherAlgorithm,
    /// It was made with another key, or of something else.
    Wrong,
}

impl KeySet {
    /// Reads a JWK Set. Keys that cannot be used here are passed over: others may use them.
    ///
    /// # Errors
    /// [`InvalidKeySet`].
    pub fn read(document: &[u8]) -> Result<Self, InvalidKeySet> {
        #[derive(Deserialize)]
        struct Document {
            keys: Vec<Value>,
        }
        let document: Document =
            serde_json::from_slice(document).map_err(|_| InvalidKeySet::Form)?;
        if document.keys.len() > MOST {
            return Err(InvalidKeySet::TooMany);
        }
        let keys: Vec<_> = document.keys.into_iter().filter_map(PublicKey::read).collect();
        if keys.is_empty() { Err(InvalidKeySet::Useless) } else { Ok(Self(keys)) }
    }

    /// Whether a key has that name.
    pub(super) fn has(&self, id: &str) -> bool {
        self.0.iter().any(|key| key.id == id)
    }

    /// Checks a signature with the key of that name.
    pub(super) fn check(
        &self,
        id: &str,
        algorithm: Algorithm,
        signed: &[u8],
        signature: &[u8],
    ) -> Result<(), BadSignature> {
        if !self.has(id) {
            return Err(BadSignature::UnknownKey);
        }
        // Names should be different, and need not be where the kinds are (RFC 7517, section 4.5).
        let mut found = self.0.iter().filter(|key| key.id == id && key.makes(algorithm)).peekable();
        if found.peek().is_none() {
            return Err(BadSignature::OtherAlgorithm);
        }
        let right = found.any(|key| key.made(algorithm, signed, signature));
        if right { Ok(()) } else { Err(BadSignature::Wrong) }
    }
}

impl fmt::Debug for KeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeySet({})", self.0.len())
    }
}

/// A JWK, as far as it matters here.
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: String,
    alg: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    key_ops: Option<Vec<String>>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl PublicKey {
    fn read(value: Value) -> Option<Self> {
        let jwk: Jwk = serde_json::from_value(value).ok()?;
        let for_signatures = jwk.purpose.is_none_or(|purpose| purpose == "sig")
            && jwk.key_ops.is_none_or(|all| all.iter().any(|one| one == "verify"));
        if !for_signatures {
            return None;
        }
        let part = |part: Option<String>| URL_SAFE_NO_PAD.decode(part?).ok();
        let material = match (jwk.kty.as_str(), jwk.crv.as_deref()) {
            ("RSA", _) => {
                let n = part(jwk.n)?;
                // A leading zero is allowed by nobody and sent by some.
                let n = n.strip_prefix(&[0]).map(<[u8]>::to_vec).unwrap_or(n);
                Material::Rsa { n, e: part(jwk.e)? }
            }
            ("EC", Some("P-256")) => Material::ec(Curve::P256, 32, part(jwk.x)?, part(jwk.y)?)?,
            ("EC", Some("P-384")) => Material::ec(Curve::P384, 48, part(jwk.x)?, part(jwk.y)?)?,
            ("OKP", Some("Ed25519")) => Material::Ed25519 { point: part(jwk.x)? },
            _ => return None,
        };
        let long_enough = match &material {
            Material::Rsa { n, e: _ } => n.len() >= SMALLEST_RSA,
            Material::Ec { .. } => true,
            Material::Ed25519 { point } => point.len() == 32,
        };
        // What it is for is not served here: then it is for nothing here.
        let only = jwk.alg.map(|name| name.parse()).transpose().ok()?;
        let key = Self { id: jwk.kid, only, material };
        (long_enough && only.is_none_or(|algorithm| key.makes(algorithm))).then_some(key)
    }

    fn makes(&self, algorithm: Algorithm) -> bool {
        let kind = match (&self.material, algorithm.scheme()) {
            (Material::Rsa { .. }, Scheme::Rsa(_))
            | (Material::Ed25519 { .. }, Scheme::Ed25519) => true,
            (Material::Ec { curve, point: _ }, Scheme::Ec(needed, _)) => *curve == needed,
            (Material::Rsa { .. } | Material::Ec { .. } | Material::Ed25519 { .. }, _) => false,
        };
        kind && self.only.is_none_or(|only| only == algorithm)
    }

    fn made(&self, algorithm: Algorithm, signed: &[u8], signature: &[u8]) -> bool {
        let checked = match (&self.material, algorithm.scheme()) {
            (Material::Rsa { n, e }, Scheme::Rsa(parameters)) => {
                RsaPublicKeyComponents { n, e }.verify(parameters, signed, signature)
            }
            (Material::Ec { curve, point }, Scheme::Ec(needed, parameters)) if *curve == needed => {
                UnparsedPublicKey::new(parameters, point).verify(signed, signature)
            }
            (Material::Ed25519 { point }, Scheme::Ed25519) => {
                UnparsedPublicKey::new(&signature::ED25519, point).verify(signed, signature)
            }
            (Material::Rsa { .. } | Material::Ec { .. } | Material::Ed25519 { .. }, _) => {
                return false;
            }
        };
        checked.is_ok()
    }
}

impl Material {
    /// A point of a curve, as X9.62 writes it.
    fn ec(curve: Curve, length: usize, x: Vec<u8>, y: Vec<u8>) -> Option<Self> {
        let point = [vec![4], x, y];
        let whole = point[1..].iter().all(|half| half.len() == length);
        whole.then(|| Self::Ec { curve, point: point.concat() })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn decoded(text: &str) -> Vec<u8> {
        URL_SAFE_NO_PAD.decode(text).unwrap()
    }

    fn set(keys: &Value) -> Result<KeySet, InvalidKeySet> {
        KeySet::read(json!({ "keys": keys }).to_string().as_bytes())
    }

    /// The examples that the RFCs publish with their keys: RFC 7515 A.2 and A.3, RFC 8037 A.4.
    fn published() -> [(Algorithm, Value, &'static str, &'static str); 3] {
        [
            (
                Algorithm::Rs256,
                json!({"kty": "RSA", "kid": "1", "e": "AQAB", "n": "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ"}),
                "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ",
                "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw",
            ),
            (
                Algorithm::Es256,
                json!({"kty": "EC", "kid": "1", "crv": "P-256", "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}),
                "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ",
                "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
            ),
            (
                Algorithm::EdDsa,
                json!({"kty": "OKP", "kid": "1", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}),
                "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc",
                "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg",
            ),
        ]
    }

    #[test]
    fn the_examples_of_the_rfcs_are_right_and_any_change_of_them_is_wrong() {
        for (algorithm, jwk, signed, signature) in published() {
            let keys = set(&json!([jwk])).unwrap();
            let good = decoded(signature);
            assert_eq!(keys.check("1", algorithm, signed.as_bytes(), &good), Ok(()));
            let wrong = Err(BadSignature::Wrong);
            assert_eq!(keys.check("1", algorithm, &signed.as_bytes()[1..], &good), wrong);
            for at in [0, good.len() / 2, good.len() - 1] {
                let mut bad = good.clone();
                bad[at] ^= 1;
                assert_eq!(keys.check("1", algorithm, signed.as_bytes(), &bad), wrong);
            }
            assert_eq!(keys.check("1", algorithm, signed.as_bytes(), &[]), wrong);
            assert_eq!(
                keys.check("2", algorithm, signed.as_bytes(), &good),
                Err(BadSignature::UnknownKey)
            );
        }
    }

    #[test]
    fn a_key_makes_signatures_of_its_kind_only() {
        for (own, jwk, signed, signature) in published() {
            let keys = set(&json!([jwk])).unwrap();
            let rsa = jwk["kty"] == "RSA";
            for other in Algorithm::ALL.into_iter().filter(|other| *other != own) {
                let said = keys.check("1", other, signed.as_bytes(), &decoded(signature));
                let scheme_of_rsa = matches!(other.scheme(), Scheme::Rsa(_));
                // RSA has several ways to sign, and this is another one.
                let expected = if rsa && scheme_of_rsa {
                    BadSignature::Wrong
                } else {
                    BadSignature::OtherAlgorithm
                };
                assert_eq!(said, Err(expected), "{own:?} as {other:?}");
            }
        }
        // A key that says what it is for is for nothing else.
        let [(_, mut jwk, ..), ..] = published();
        jwk["alg"] = json!("PS256");
        let keys = set(&json!([jwk])).unwrap();
        assert_eq!(keys.check("1", Algorithm::Rs256, b"", b""), Err(BadSignature::OtherAlgorithm));
    }

    #[test]
    fn what_cannot_be_used_is_passed_over_and_a_set_of_nothing_else_is_none() {
        let [(_, rsa, ..), (_, ec, ..), (_, ed, ..)] = published();
        let with = |mut jwk: Value, name: &str, value: Value| {
            jwk[name] = value;
            jwk
        };
        let useless = [
            with(rsa.clone(), "use", json!("enc")),
            with(rsa.clone(), "key_ops", json!(["encrypt"])),
            with(rsa.clone(), "alg", json!("RSA-OAEP")),
            with(rsa.clone(), "alg", json!("HS256")),
            with(rsa.clone(), "alg", json!("ES256")),
            with(rsa.clone(), "n", json!("ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAk")),
            with(rsa.clone(), "n", json!("not base64url!")),
            with(rsa.clone(), "kid", json!(7)),
            with(ec.clone(), "crv", json!("P-384")),
            with(ec.clone(), "crv", json!("secp256k1")),
            with(ec.clone(), "x", json!("f83O")),
            with(ed.clone(), "crv", json!("X25519")),
            with(ed.clone(), "x", json!("11qY")),
            json!({"kty": "oct", "kid": "1", "k": "AAAA", "alg": "HS256"}),
            json!({"kty": "RSA"}),
            json!("key"),
        ];
        for one in &useless {
            assert_eq!(set(&json!([one])).err(), Some(InvalidKeySet::Useless), "{one}");
        }
        let mut all = useless.to_vec();
        all.push(with(ed, "kid", json!("good")));
        let keys = set(&json!(all)).unwrap();
        assert!(keys.has("good") && !keys.has("1"), "{keys:?}");
        let many: Vec<_> =
            (0..=MOST).map(|n| with(ec.clone(), "kid", json!(n.to_string()))).collect();
        assert_eq!(set(&json!(many)).err(), Some(InvalidKeySet::TooMany));
        for no in ["", "[]", "{}", "{\"keys\": {}}", "<html>"] {
            assert_eq!(KeySet::read(no.as_bytes()).err(), Some(InvalidKeySet::Form), "{no}");
        }
    }

    #[test]
    fn an_algorithm_is_named_as_the_registry_names_it() {
        for algorithm in Algorithm::ALL {
            assert_eq!(algorithm.as_str().parse(), Ok(algorithm));
        }
        assert_eq!("Ed25519".parse(), Ok(Algorithm::EdDsa));
        for no in
            ["none", "None", "NONE", "HS256", "HS384", "HS512", "rs256", "ES512", "ES256K", ""]
        {
            assert_eq!(no.parse::<Algorithm>(), Err(UnknownAlgorithm), "{no}");
        }
    }
}
