/*
 * Whether a function may have its fiber wait.
 */

/*
 * Whether a wait of the running fiber reaches the loop: it is resumed from the root fiber by Janet code alone, none of
 * these fibers keeps its child's waits for itself, and no C code has called a function in one of them (janet_call marks
 * its frame, and so does the beginning of a fiber).
 */
int ringspun_vm_can_wait(void) {
    for (JanetFiber *fiber = janet_vm.root_fiber; fiber; fiber = fiber->child) {
        if (fiber != janet_vm.root_fiber && fiber->flags & (1 << JANET_SIGNAL_EVENT)) return 0;
        int entrances = 0;
        for (int32_t at = fiber->frame; at > 0;) {
            JanetStackFrame *frame = (JanetStackFrame *)(fiber->data + at - JANET_FRAME_SIZE);
            entrances += (frame->flags & JANET_STACKFRAME_ENTRANCE) != 0;
            at = frame->prevframe;
        }
        if (entrances > 1) return 0;
        if (fiber == janet_vm.fiber) return 1;
    }
    return 0;
}
