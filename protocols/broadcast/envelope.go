package broadcast

import (
	"errors"
	"fmt"
	"time"

	ma "github.com/multiformats/go-multiaddr"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"
)

const (
	questionID  = 16
	maxAddrs    = 8
	maxAddrSize = 256
	// overhead is what an envelope may have around its body: the question with the asker's addresses, mostly.
	overhead = 4 << 10
)

// parse reads an envelope and checks everything that does not depend on who hears it, when, and as what type.
func parse(data []byte) (*Envelope, error) {
	if len(data) > MaxMessage+overhead {
		return nil, ErrTooLarge
	}
	var e Envelope
	if err := proto.Unmarshal(data, &e); err != nil {
		return nil, err
	}
	switch {
	case len(e.ProtoReflect().GetUnknown()) > 0:
		return nil, errors.New("unknown fields")
	case e.GetSession() == 0 || e.GetSequence() == 0 || e.GetTime() <= 0:
		return nil, errors.New("no session, sequence or time")
	case e.GetBody() == nil || !e.GetBody().MessageName().IsValid():
		return nil, errors.New("no body with a type")
	case proto.Size(e.GetBody()) > MaxMessage:
		return nil, ErrTooLarge
	}
	return &e, checkQuestion(e.GetQuestion())
}

func checkQuestion(q *Question) error {
	switch {
	case q == nil:
		return nil
	case len(q.GetId()) != questionID:
		return fmt.Errorf("a question's ID of %d bytes", len(q.GetId()))
	case len(q.GetAddrs()) > maxAddrs:
		return fmt.Errorf("%d addresses", len(q.GetAddrs()))
	}
	for _, a := range q.GetAddrs() {
		if len(a) > maxAddrSize {
			return errors.New("an address too long")
		}
		if _, err := ma.NewMultiaddrBytes(a); err != nil {
			return err
		}
	}
	return nil
}

// stamp is when the author says that it published the message.
func (e *Envelope) stamp() time.Time { return time.Unix(0, e.GetTime()) }

// pack wraps a message; one that is an Any already goes as it is.
func pack(m proto.Message) (*anypb.Any, error) {
	body, ok := m.(*anypb.Any)
	if !ok {
		body = &anypb.Any{}
		if err := anypb.MarshalFrom(body, m, proto.MarshalOptions{}); err != nil {
			return nil, fmt.Errorf("broadcast: %w", err)
		}
	}
	switch {
	case !body.MessageName().IsValid():
		return nil, errors.New("broadcast: an Any without a type")
	case proto.Size(body) > MaxMessage:
		return nil, fmt.Errorf("%w: %d bytes, at most %d are allowed", ErrTooLarge, proto.Size(body), MaxMessage)
	}
	return body, nil
}

// unpack is the message in an Any as type T, which may be *anypb.Any itself.
func unpack[T proto.Message](body *anypb.Any) (T, error) {
	var zero T
	m := zero.ProtoReflect().New().Interface()
	if _, ok := m.(*anypb.Any); ok {
		m = body
	} else if err := body.UnmarshalTo(m); err != nil {
		return zero, fmt.Errorf("broadcast: %w", err)
	}
	t, ok := m.(T)
	if !ok {
		return zero, fmt.Errorf("broadcast: %T is not %T", m, zero)
	}
	return t, nil
}

// decodes tells whether a body is a message of a type; every body is one of type Any.
func decodes(t protoreflect.MessageType, body *anypb.Any) bool {
	if t.Descriptor().FullName() == (*anypb.Any)(nil).ProtoReflect().Descriptor().FullName() {
		return true
	}
	return body.MessageName() == t.Descriptor().FullName() && body.UnmarshalTo(t.New().Interface()) == nil
}
