package dyncall

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"
)

// InputError tells what is wrong with a document that was to be sent.
type InputError struct {
	Document int // counted from 1
	Err      error
}

func (e *InputError) Error() string { return fmt.Sprintf("input document %d: %v", e.Document, e.Err) }

// Unwrap returns the cause.
func (e *InputError) Unwrap() error { return e.Err }

// documents reads messages from a sequence of JSON documents.
type documents struct {
	dec   *json.Decoder
	desc  protoreflect.MessageDescriptor
	types Types
	n     int
}

func newDocuments(r io.Reader, desc protoreflect.MessageDescriptor, types Types) *documents {
	return &documents{dec: json.NewDecoder(r), desc: desc, types: types}
}

// next returns the next message, [io.EOF] after the last, an [*InputError], or why nothing can be read.
func (d *documents) next() (*dynamicpb.Message, error) {
	d.n++
	var raw json.RawMessage
	err := d.dec.Decode(&raw)
	_, syntax := errors.AsType[*json.SyntaxError](err)
	switch {
	case errors.Is(err, io.EOF):
		return nil, io.EOF
	case errors.Is(err, io.ErrUnexpectedEOF):
		return nil, &InputError{Document: d.n, Err: errors.New("it ends in the middle")}
	case syntax:
		return nil, &InputError{Document: d.n, Err: fmt.Errorf("not JSON: %w", err)}
	case err != nil:
		return nil, fmt.Errorf("read input document %d: %w", d.n, err)
	}
	msg := dynamicpb.NewMessage(d.desc)
	if err := (protojson.UnmarshalOptions{Resolver: d.types}).Unmarshal(raw, msg); err != nil {
		return nil, &InputError{Document: d.n, Err: fmt.Errorf("not a %s: %s", d.desc.FullName(), withoutPrefix(err))}
	}
	return msg, nil
}

// only returns the one message there is; nothing at all stands for an empty one.
func (d *documents) only() (*dynamicpb.Message, error) {
	msg, err := d.next()
	switch {
	case errors.Is(err, io.EOF):
		return dynamicpb.NewMessage(d.desc), nil
	case err != nil:
		return nil, err
	}
	_, err = d.next()
	_, bad := errors.AsType[*InputError](err)
	switch {
	case errors.Is(err, io.EOF):
		return msg, nil
	case err == nil || bad:
		return nil, &InputError{Document: 2, Err: errors.New("the method takes one message: leave out what follows the first document")}
	}
	return nil, err
}

// withoutPrefix drops "proto:" and the kind of space behind it that protobuf varies on purpose.
func withoutPrefix(err error) string {
	s := strings.ReplaceAll(err.Error(), "\u00a0", " ")
	return strings.TrimPrefix(s, "proto: ")
}
