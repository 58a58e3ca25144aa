def get_current_errors(loss_D_A, loss_D_B, loss_idt_A, loss_idt_B,
                       loss_G_A, loss_G_B, loss_cycle_A, loss_cycle_B):
    return [loss_D_A.data[0], loss_D_B.data[0], loss_idt_A.data[0], loss_idt_B.data[0],
            loss_G_A.data[0], loss_G_B.data[0], loss_cycle_A.data[0], loss_cycle_B.data[0]]
