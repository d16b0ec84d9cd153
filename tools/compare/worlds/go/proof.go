package main

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
)

// nonceBytes of random are what a side has never used before.
const nonceBytes = 16

// party is one end of a link: a name, and its nonce as hexadecimal digits.
type party struct{ name, nonce string }

// prove is what a side says to prove that it knows the secret, without telling it: HMAC-SHA256 over who speaks, both names and both
// nonces. The nonces make an old proof worthless, the speaker's side one that is sent back.
func prove(secret []byte, speaker string, dialler, acceptor party) string {
	mac := hmac.New(sha256.New, secret)
	fmt.Fprintf(mac, "herd-mio link 1\n%s\n%s\n%s\n%s\n%s\n", speaker, dialler.name, acceptor.name, dialler.nonce, acceptor.nonce)
	return hex.EncodeToString(mac.Sum(nil))
}

// isProof compares hexadecimal digits, in a time that does not tell how much of a wrong proof was right.
func isProof(claimed []byte, proof string) bool {
	return hmac.Equal(bytes.ToLower(claimed), []byte(proof))
}

// randomBytes come from the system.
func randomBytes(count int) ([]byte, error) {
	bytes := make([]byte, count)
	_, err := rand.Read(bytes)
	return bytes, err
}
