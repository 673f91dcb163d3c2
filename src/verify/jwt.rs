//! Signatures of tokens for `jsonwebtoken`, on ring, verifying only.
//!
//! The crate's own providers bring either a second TLS-grade C library or an RSA implementation
//! with an open timing advisory; ring is here already.

use std::sync::Once;

use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{ErrorKind, Result};
use jsonwebtoken::signature::{Error, Verifier};
use jsonwebtoken::{Algorithm, DecodingKey, DecodingKeyKind, EncodingKey};
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256,
    RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512, RsaParameters, RsaPublicKeyComponents,
    UnparsedPublicKey, VerificationAlgorithm,
};

/// Makes the algorithms known to `jsonwebtoken`; calling it again does nothing.
pub(super) fn install() {
    static CRYPTO_INSTALLED: Once = Once::new();
    CRYPTO_INSTALLED.call_once(|| {
        // A second provider could only come from another copy of this function.
        let _ = JWT_CRYPTO.install_default();
    });
}

/// Algorithms that issuers use; a symmetric one would take the public key for a secret.
const ACCEPTED_ALGORITHMS: [Algorithm; 9] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

/// Whether signatures of this algorithm are made with a key that only the issuer has.
pub(super) fn is_asymmetric(algorithm: Algorithm) -> bool {
    ACCEPTED_ALGORITHMS.contains(&algorithm)
}

static JWT_CRYPTO: CryptoProvider = CryptoProvider {
    signer_factory: no_signer,
    verifier_factory: verifier,
    key_utils: KeyUtils::new_unimplemented(),
};

fn no_signer(_: &Algorithm, _: &EncodingKey) -> Result<Box<dyn JwtSigner>> {
    Err(ErrorKind::InvalidAlgorithm.into())
}

fn verifier(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>> {
    let algorithm = *algorithm;
    match (key.kind(), rsa(algorithm), point(algorithm)) {
        (DecodingKeyKind::RsaModulusExponent { n, e }, Some(parameters), _) => {
            Ok(Box::new(RsaJwk { algorithm, parameters, modulus: n.clone(), exponent: e.clone() }))
        }
        (DecodingKeyKind::SecretOrDer(bytes), _, Some(curve)) => {
            Ok(Box::new(EcPoint { algorithm, key: UnparsedPublicKey::new(curve, bytes.clone()) }))
        }
        _ => Err(ErrorKind::InvalidAlgorithm.into()),
    }
}

fn rsa(algorithm: Algorithm) -> Option<&'static RsaParameters> {
    match algorithm {
        Algorithm::RS256 => Some(&RSA_PKCS1_2048_8192_SHA256),
        Algorithm::RS384 => Some(&RSA_PKCS1_2048_8192_SHA384),
        Algorithm::RS512 => Some(&RSA_PKCS1_2048_8192_SHA512),
        Algorithm::PS256 => Some(&RSA_PSS_2048_8192_SHA256),
        Algorithm::PS384 => Some(&RSA_PSS_2048_8192_SHA384),
        Algorithm::PS512 => Some(&RSA_PSS_2048_8192_SHA512),
        _ => None,
    }
}

fn point(algorithm: Algorithm) -> Option<&'static dyn VerificationAlgorithm> {
    match algorithm {
        Algorithm::ES256 => Some(&ECDSA_P256_SHA256_FIXED),
        Algorithm::ES384 => Some(&ECDSA_P384_SHA384_FIXED),
        Algorithm::EdDSA => Some(&ED25519),
        _ => None,
    }
}

struct RsaJwk {
    algorithm: Algorithm,
    parameters: &'static RsaParameters,
    modulus: Vec<u8>,
    exponent: Vec<u8>,
}

impl Verifier<Vec<u8>> for RsaJwk {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> std::result::Result<(), Error> {
        RsaPublicKeyComponents { n: &self.modulus, e: &self.exponent }
            .verify(self.parameters, message, signature)
            .map_err(|_| Error::new())
    }
}

impl JwtVerifier for RsaJwk {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

/// A key that is a point on a curve.
struct EcPoint {
    algorithm: Algorithm,
    key: UnparsedPublicKey<Vec<u8>>,
}

impl Verifier<Vec<u8>> for EcPoint {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> std::result::Result<(), Error> {
        self.key.verify(message, signature).map_err(|_| Error::new())
    }
}

impl JwtVerifier for EcPoint {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}
