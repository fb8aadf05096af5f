package trust

import "crypto/ed25519"

// Every signature of this package is over a seal and then the bytes: the seal names what is signed
// and ends in a zero byte, so that no document passes for one of another kind.

func sign(key ed25519.PrivateKey, seal string, doc []byte) [64]byte {
	return [64]byte(ed25519.Sign(key, append([]byte(seal), doc...)))
}

// verify is false for a key that is none.
func verify(key ed25519.PublicKey, seal string, doc []byte, sig [64]byte) bool {
	return len(key) == ed25519.PublicKeySize && ed25519.Verify(key, append([]byte(seal), doc...), sig[:])
}
