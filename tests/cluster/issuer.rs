//! An issuer of tokens on loopback, with a labelled key.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::signature::{KeyPair, RSA_PKCS1_SHA256, RsaKeyPair};
use serde_json::{Value, json};

use super::bed::Bed;

pub struct Issuer {
    pub url: String,
    key: RsaKeyPair,
}

const TEST_KEY: &str = include_str!("../fixtures/rsa-key-for-tests-only.pem");

impl Issuer {
    /// Serves its discovery document and keys until the suite ends.
    pub fn start(_: &Bed) -> Issuer {
        let body: String = TEST_KEY.lines().filter(|line| !line.starts_with("-----")).collect();
        let key = RsaKeyPair::from_der(&STANDARD.decode(body).expect("base64")).expect("an RSA key");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let public = ring::rsa::PublicKeyComponents::<Vec<u8>>::from(key.public_key());
        let keys = json!({"keys": [{"kty": "RSA", "alg": "RS256", "use": "sig", "kid": "test-1",
            "n": URL_SAFE_NO_PAD.encode(public.n), "e": URL_SAFE_NO_PAD.encode(public.e)}]});
        let document = json!({"issuer": url, "jwks_uri": format!("{url}/keys"), "authorization_endpoint": url,
            "id_token_signing_alg_values_supported": ["RS256"], "response_types_supported": ["id_token"], "subject_types_supported": ["public"]});
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mut lines = BufReader::new(&stream).lines().map_while(Result::ok);
                let first = lines.next().unwrap_or_default();
                lines.take_while(|line| !line.is_empty()).for_each(drop);
                let body = if first.contains("/keys") { &keys } else { &document }.to_string();
                let head = format!(
                    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                    body.len()
                );
                let _ = stream.write_all(format!("{head}{body}").as_bytes());
            }
        });
        Issuer { url, key }
    }

    /// A token with these claims, good for some minutes.
    pub fn token(&self, claims: &Value) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time").as_secs();
        let mut all = json!({"iss": self.url, "sub": "job", "iat": now, "exp": now + 600});
        all.as_object_mut().expect("a mapping").extend(claims.as_object().expect("a mapping").clone());
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", part(&json!({"alg": "RS256", "kid": "test-1"})), part(&all));
        let mut signature = vec![0; self.key.public().modulus_len()];
        let random = ring::rand::SystemRandom::new();
        self.key.sign(&RSA_PKCS1_SHA256, &random, message.as_bytes(), &mut signature).expect("a signature");
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}
