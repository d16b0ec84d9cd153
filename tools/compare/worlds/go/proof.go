package main

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
)

// nonceBytes is the length of a nonce. Each connection has a new one.
const nonceBytes = 16

// party is one end of a link: a name, and its nonce as hexadecimal digits.
type party struct{ name, nonce string }

// prove is the proof that a side knows the secret, without sending it. It is an HMAC-SHA256 over
// the speaker's side, both names and both nonces. The nonces make an old proof invalid. The side
// makes a reflected proof invalid.
func prove(secret []byte, speaker string, dialler, acceptor party) string {
	mac := hmac.New(sha256.New, secret)
	fmt.Fprintf(mac, "herd-mio link 1\n%s\n%s\n%s\n%s\n%s\n", speaker, dialler.name, acceptor.name, dialler.nonce, acceptor.nonce)
	return hex.EncodeToString(mac.Sum(nil))
}

// isProof compares hexadecimal digits, in a time that does not depend on the position of the first
// difference.
func isProof(claimed []byte, proof string) bool {
	return hmac.Equal(bytes.ToLower(claimed), []byte(proof))
}

// randomBytes returns random bytes from the system.
func randomBytes(count int) ([]byte, error) {
	bytes := make([]byte, count)
	_, err := rand.Read(bytes)
	return bytes, err
}
