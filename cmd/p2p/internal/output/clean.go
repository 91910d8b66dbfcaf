package output

import (
	"reflect"

	"github.com/lynn9388/p2p/internal/safetext"
)

// Clean returns a copy of value in which every string is safe to print, in structs, slices, maps and behind pointers
// and interfaces. Unexported fields and types that format themselves, such as time.Time, are copied as they are.
func Clean(value any) any {
	if value == nil {
		return nil
	}
	return clean(reflect.ValueOf(value)).Interface()
}

func clean(v reflect.Value) reflect.Value {
	out := reflect.New(v.Type()).Elem()
	out.Set(v)
	switch v.Kind() {
	case reflect.String:
		out.SetString(safetext.Clean(v.String()))
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				out.Field(i).Set(clean(v.Field(i)))
			}
		}
	case reflect.Slice:
		if v.IsNil() {
			break
		}
		out.Set(reflect.MakeSlice(v.Type(), v.Len(), v.Len()))
		for i := range v.Len() {
			out.Index(i).Set(clean(v.Index(i)))
		}
	case reflect.Map:
		if v.IsNil() {
			break
		}
		out.Set(reflect.MakeMapWithSize(v.Type(), v.Len()))
		for it := v.MapRange(); it.Next(); {
			out.SetMapIndex(clean(it.Key()), clean(it.Value()))
		}
	case reflect.Pointer:
		if !v.IsNil() {
			out.Set(reflect.New(v.Type().Elem()))
			out.Elem().Set(clean(v.Elem()))
		}
	case reflect.Interface:
		if !v.IsNil() {
			out.Set(clean(v.Elem()))
		}
	default:
	}
	return out
}
