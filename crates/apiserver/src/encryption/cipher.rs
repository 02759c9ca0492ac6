//! The providers: each seals bytes with one key, in the original's form.

use super::MARK;
use aes::cipher::{BlockModeDecrypt as _, BlockModeEncrypt as _, KeyIvInit as _, block_padding::Pkcs7};
use crypto_secretbox::aead::{Aead as _, KeyInit as _};
use ring::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom as _, SystemRandom};
use std::io;

const IV: usize = 16;
const BOX_NONCE: usize = 24;

/// One key of one provider.
pub(super) struct Cipher {
    prefix: String,
    kind: Kind,
    random: SystemRandom,
}

enum Kind {
    AesGcm(LessSafeKey),
    AesCbc(Vec<u8>),
    SecretBox(Box<crypto_secretbox::XSalsa20Poly1305>),
}

impl Cipher {
    /// AES-GCM with a random nonce, bound to the record's key. A key serves some hundred thousand writes.
    pub fn aes_gcm(name: &str, secret: &[u8]) -> Option<Self> {
        let algorithm = match secret.len() {
            16 => &AES_128_GCM,
            32 => &AES_256_GCM,
            _ => return None,
        };
        let key = UnboundKey::new(algorithm, secret).ok()?;
        Some(Self::of("aesgcm", name, Kind::AesGcm(LessSafeKey::new(key))))
    }

    /// AES-CBC with PKCS#7 padding; nothing authenticates it.
    pub fn aes_cbc(name: &str, secret: &[u8]) -> Option<Self> {
        matches!(secret.len(), 16 | 24 | 32).then(|| Self::of("aescbc", name, Kind::AesCbc(secret.to_vec())))
    }

    /// XSalsa20 and Poly1305 with a random nonce.
    pub fn secret_box(name: &str, secret: &[u8]) -> Option<Self> {
        let cipher = crypto_secretbox::XSalsa20Poly1305::new_from_slice(secret).ok()?;
        Some(Self::of("secretbox", name, Kind::SecretBox(Box::new(cipher))))
    }

    fn of(provider: &str, name: &str, kind: Kind) -> Self {
        Self { prefix: format!("{MARK}{provider}:v1:{name}:"), kind, random: SystemRandom::new() }
    }

    /// What values of this key begin with.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    fn random<const N: usize>(&self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.random.fill(&mut bytes).map_err(|_| io::Error::other("the system gives no random bytes"))?;
        Ok(bytes)
    }

    /// Appends the sealed form of `plain`.
    pub fn seal(&self, context: &[u8], plain: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        let refused = || io::Error::other("the value could not be encrypted");
        match &self.kind {
            Kind::AesGcm(key) => {
                let nonce = self.random::<NONCE_LEN>()?;
                let mut body = plain.to_vec();
                let nonce_used = Nonce::assume_unique_for_key(nonce);
                key.seal_in_place_append_tag(nonce_used, Aad::from(context), &mut body)
                    .map_err(|_| refused())?;
                out.extend_from_slice(&nonce);
                out.append(&mut body);
            }
            Kind::AesCbc(key) => {
                let iv = self.random::<IV>()?;
                let mut body = match key.len() {
                    16 => cbc::Encryptor::<aes::Aes128>::new_from_slices(key, &iv)
                        .map(|c| c.encrypt_padded_vec::<Pkcs7>(plain)),
                    24 => cbc::Encryptor::<aes::Aes192>::new_from_slices(key, &iv)
                        .map(|c| c.encrypt_padded_vec::<Pkcs7>(plain)),
                    _ => cbc::Encryptor::<aes::Aes256>::new_from_slices(key, &iv)
                        .map(|c| c.encrypt_padded_vec::<Pkcs7>(plain)),
                }
                .map_err(|_| refused())?;
                out.extend_from_slice(&iv);
                out.append(&mut body);
            }
            Kind::SecretBox(cipher) => {
                let nonce = self.random::<BOX_NONCE>()?;
                let mut body = cipher.encrypt(&nonce.into(), plain).map_err(|_| refused())?;
                out.extend_from_slice(&nonce);
                out.append(&mut body);
            }
        }
        Ok(())
    }

    /// The plain form of what [`Self::seal`] made for the same context.
    pub fn open(&self, context: &[u8], sealed: &[u8]) -> io::Result<Vec<u8>> {
        let damaged = || {
            let what = "the data is corrupted or was moved: it cannot be decrypted with its key";
            io::Error::new(io::ErrorKind::InvalidData, what)
        };
        match &self.kind {
            Kind::AesGcm(key) => {
                let (nonce, body) = sealed.split_first_chunk::<NONCE_LEN>().ok_or_else(damaged)?;
                let mut body = body.to_vec();
                let nonce = Nonce::assume_unique_for_key(*nonce);
                let plain = key.open_in_place(nonce, Aad::from(context), &mut body);
                let length = plain.map_err(|_| damaged())?.len();
                body.truncate(length);
                Ok(body)
            }
            Kind::AesCbc(key) => {
                let (iv, body) = sealed.split_first_chunk::<IV>().ok_or_else(damaged)?;
                match key.len() {
                    16 => cbc::Decryptor::<aes::Aes128>::new_from_slices(key, iv)
                        .map(|c| c.decrypt_padded_vec::<Pkcs7>(body)),
                    24 => cbc::Decryptor::<aes::Aes192>::new_from_slices(key, iv)
                        .map(|c| c.decrypt_padded_vec::<Pkcs7>(body)),
                    _ => cbc::Decryptor::<aes::Aes256>::new_from_slices(key, iv)
                        .map(|c| c.decrypt_padded_vec::<Pkcs7>(body)),
                }
                .map_err(|_| damaged())?
                .map_err(|_| damaged())
            }
            Kind::SecretBox(cipher) => {
                let (nonce, body) = sealed.split_first_chunk::<BOX_NONCE>().ok_or_else(damaged)?;
                cipher.decrypt(&(*nonce).into(), body).map_err(|_| damaged())
            }
        }
    }
}
