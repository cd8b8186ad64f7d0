"""The part of distillation that needs torch; imported only by functions that train."""
